#!/usr/bin/env bash
# Train on one GPU. DeepSpeed keeps float32 copies of bfloat16 weights; without them a small learning rate rounds to
# nothing.
#   local_scripts/train_1_gpu.sh recipes/qwen2_5_vl_3b/visionary_r1.yaml [--key value ...]
set -euo pipefail
zero=$(dirname "$0")/../recipes/deepspeed
recipe=${1:?"usage: $0 RECIPE [--key value ...]"}
exec torchrun --standalone --nproc_per_node=1 -m open_r1_vision.train --config "$recipe" --deepspeed "$zero"/zero2.json "${@:2}"
