#!/bin/bash
# bash one_machine.sh 4 photos --rung mixup --but distill --out runs/first: four processes, one a GPU; the same command goes on
set -euo pipefail
[[ ${1:-} =~ ^[0-9]+$ ]] || { echo "usage: bash one_machine.sh PROCESSES SRC [options of bot-train]" >&2; exit 2; }
n=$1; shift
exec torchrun --standalone --nproc-per-node "$n" --max-restarts 3 --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGUSR1 -m bot train "$@"
