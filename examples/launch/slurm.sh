#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=64 --time=04:00:00 --requeue --signal=USR1@120
# RUN=/shared/runs/first sbatch slurm.sh photos --rung mixup --but distill: it is requeued until bot-status says that the run is finished
set -uo pipefail
: "${RUN:?give the run folder, on a disk that all machines see: RUN=/shared/runs/first sbatch slurm.sh ...}"
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" --rdzv-backend c10d --rdzv-endpoint "$HEAD:29500" --rdzv-id "$SLURM_JOB_ID" \
    --max-restarts 3 --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGUSR1 -m bot train "$@" --out "$RUN"
bot-status "$RUN"; code=$?
if [ $code = 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 50 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $code
