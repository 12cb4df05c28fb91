#!/usr/bin/env bash
# docs/results.md, caption-GRPO: caption-GRPO on three seeds, plain GRPO with the same budget on the first of them.
#   local_scripts/reproduce_starter.sh           about an hour on two cores
set -euo pipefail
runs=runs/starter
for seed in 0 1 2; do
  local_scripts/train_cpu.sh recipes/starter/visionary_r1.yaml --seed $seed --output_dir $runs/visionary_r1_seed$seed
done
local_scripts/train_cpu.sh recipes/starter/grpo.yaml --seed 0 --output_dir $runs/grpo_seed0
python eval/table.py $runs/visionary_r1_seed{0,1,2} $runs/grpo_seed0
python eval/pairs.py --first $runs/grpo_seed0 --second $runs/visionary_r1_seed0
python eval/starter.py --model $runs/grpo_seed0/final  # plain GRPO has no reader of its own
