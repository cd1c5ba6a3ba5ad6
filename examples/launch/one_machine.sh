#!/bin/bash
# bash one_machine.sh 4 photos --rung mixup --but distill --out runs/first: four processes, one a GPU; the same command goes on
set -euo pipefail
n=${1:?usage: bash one_machine.sh PROCESSES SRC [options of bot-train]}; shift
[[ $n =~ ^[0-9]+$ ]] || { echo "usage: bash one_machine.sh PROCESSES SRC [options]: '$n' is no number" >&2; exit 2; }
exec torchrun --standalone --nproc-per-node "$n" --max-restarts 3 --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGUSR1 -m bot train "$@"
