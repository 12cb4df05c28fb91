#!/usr/bin/env bash
# docs/results.md, PeBR-R1: two stages against one on everything, three seeds, the same total of steps.
#   local_scripts/reproduce_curriculum.sh      three curricula, and three runs of plain GRPO from their warm-ups
set -euo pipefail
runs=runs/starter
for seed in 0 1 2; do
  python -m open_r1_vision.curriculum --config recipes/starter/pebr_r1.yaml --seed $seed --output_dir $runs/pebr_r1_seed$seed
  # the recipe of its last stage, on all rows and from the warm-up, for the steps of both stages
  local_scripts/train_cpu.sh $runs/pebr_r1_seed$seed/recipes/reason.yaml --output_dir $runs/one_stage_seed$seed \
    --model_name_or_path $runs/pebr_r1_seed$seed/warm_up/final --max_steps 45 \
    --dataset open_r1_vision.starter.digits.rows --dataset_split train --dataset_options '{"count": 1536}'
  # new samples of the rows between easy and hard: how many groups have no signal with the split, and without it
  torchrun --standalone --nproc_per_node=2 -m open_r1_vision.sample --config $runs/pebr_r1_seed$seed/recipes/difficulty.yaml \
    --dataset open_r1_vision.data.splits.rows --dataset_split medium --seed 100 \
    --dataset_options "{\"path\": \"$runs/pebr_r1_seed$seed/splits\"}" --output_dir $runs/medium_seed$seed
  python -m open_r1_vision.split --samples $runs/medium_seed$seed --answer_form sections --output_dir $runs/medium_splits_seed$seed
done
one=($runs/one_stage_seed{0,1,2})
two=($runs/pebr_r1_seed{0,1,2}/reason)
python eval/pairs.py --first "${one[@]}" --second "${two[@]}" --signal accuracy_reward --signal_last 30
python eval/table.py $runs/pebr_r1_seed{0,1,2}/perceive
