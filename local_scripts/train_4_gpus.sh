#!/usr/bin/env bash
# Train on 4 GPUs of one machine, parameters sharded by DeepSpeed ZeRO-3.
#   local_scripts/train_4_gpus.sh recipes/qwen2_5_vl_3b/visionary_r1.yaml [OVERLAY ...] [--key value ...]
# With overlays, such as those in recipes/hardware, they alone say what is sharded.
set -euo pipefail
recipe=${1:?"usage: $0 RECIPE [OVERLAY ...] [--key value ...]"}
if [[ ${2:---} == --* ]]; then
  set -- "$recipe" --deepspeed "$(dirname "$0")/../recipes/deepspeed/zero3.json" "${@:2}"
fi
exec torchrun --standalone --nproc_per_node=4 -m open_r1_vision.train --config "$@"
