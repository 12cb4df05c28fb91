#!/usr/bin/env bash
# Train on this machine's cores, one process and one thread each: more threads than cores make a step many times slower.
#   local_scripts/train_cpu.sh recipes/starter/visionary_r1.yaml [OVERLAY ...] [--key value ...]      PROCESSES=4 for four cores
set -euo pipefail
recipe=${1:?"usage: $0 RECIPE [OVERLAY ...] [--key value ...]"}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec torchrun --standalone --nproc_per_node="${PROCESSES:-2}" -m open_r1_vision.train --config "$recipe" "${@:2}"
