#!/usr/bin/env bash
# docs/results.md, Perception-R1: with and without the visual perception reward on the starter, three seeds.
#   local_scripts/reproduce_perception.sh      six runs of 80 steps
set -euo pipefail
runs=runs/starter
recipe=recipes/starter/perception_r1.yaml
for seed in 0 1 2; do
  local_scripts/train_cpu.sh $recipe --seed $seed --output_dir $runs/perception_seed$seed
  local_scripts/train_cpu.sh $recipe --seed $seed --output_dir $runs/no_perception_seed$seed --reward_weights 0.9 0.1 0 1
done
python eval/pairs.py --first $runs/no_perception_seed{0,1,2} --second $runs/perception_seed{0,1,2}
python eval/perception.py --first $runs/no_perception_seed{0,1,2} --second $runs/perception_seed{0,1,2}
