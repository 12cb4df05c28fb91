#!/usr/bin/env bash
# docs/results.md, Hint-GRPO: plain GRPO against Hint-GRPO on the starter's hard rows, three seeds; then both hint modes.
#   local_scripts/reproduce_hints.sh           about an hour on two cores
set -euo pipefail
runs=runs/starter
recipe=recipes/starter/hint_grpo.yaml
for seed in 0 1 2; do
  local_scripts/train_cpu.sh $recipe --seed $seed --output_dir $runs/hint_grpo_seed$seed
  local_scripts/train_cpu.sh $recipe --seed $seed --output_dir $runs/hint_grpo_plain_seed$seed --hint_levels 1
done
python eval/pairs.py --first $runs/hint_grpo_plain_seed{0,1,2} --second $runs/hint_grpo_seed{0,1,2} \
  --steps 20 40 60 --signal accuracy_reward --metric hints/utilisation hints/utilisation_before hints/unsolved hints/extra_tokens step_time
local_scripts/train_cpu.sh $recipe --output_dir $runs/hint_grpo_parallel_seed0 --hint_mode parallel
python eval/pairs.py --first $runs/hint_grpo_parallel_seed0 --second $runs/hint_grpo_seed0 --steps 20 40 60 \
  --metric hints/extra_tokens hints/utilisation
for mode in escalate parallel; do
  local_scripts/train_cpu.sh $recipe --max_steps 10 --output_dir $runs/hint_grpo_$mode --hint_mode $mode
done
python eval/pairs.py --first $runs/hint_grpo_parallel --second $runs/hint_grpo_escalate --measure \
  --metric hints/extra_tokens hints/utilisation step_time seconds/generation
