#!/usr/bin/env bash
# Train on 8 GPUs of one machine, parameters sharded by DeepSpeed ZeRO-3.
#   local_scripts/train_8_gpus.sh recipes/qwen2_5_vl_3b/visionary_r1.yaml [--key value ...]
set -euo pipefail
zero=$(dirname "$0")/../recipes/deepspeed
recipe=${1:?"usage: $0 RECIPE [--key value ...]"}
exec torchrun --standalone --nproc_per_node=8 -m open_r1_vision.train --config "$recipe" --deepspeed "$zero"/zero3.json "${@:2}"
