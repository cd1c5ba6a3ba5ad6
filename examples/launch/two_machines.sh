#!/bin/bash
# On each of two machines: HEAD=name-of-one bash two_machines.sh 8 photos --rung mixup --but distill --out /shared/runs/first
# The folder of the run has to be on a disk that both see.
set -euo pipefail
[[ ${1:-} =~ ^[0-9]+$ ]] || { echo "usage: HEAD=name-of-one bash two_machines.sh PROCESSES SRC [options of bot-train]" >&2; exit 2; }
n=$1; shift
: "${HEAD:?give the name of one of the machines: HEAD=name bash two_machines.sh ...}"
exec torchrun --nnodes 2 --nproc-per-node "$n" --rdzv-backend c10d --rdzv-endpoint "$HEAD:${PORT:-29500}" --rdzv-id "${JOB:-bot}" \
    --max-restarts 3 --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGUSR1 -m bot train "$@"
