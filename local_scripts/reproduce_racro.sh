#!/usr/bin/env bash
# docs/results.md, RACRO: caption reward optimisation on three seeds, and what a better reasoner, that had no part in it,
# reads from the captions; on one seed, GRPO and both orders of the two stages.
#   local_scripts/reproduce_racro.sh      six runs of 80 steps, and a reasoner
set -euo pipefail
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
runs=runs/starter
cro=recipes/starter/racro_cro.yaml
grpo=recipes/starter/racro_grpo.yaml

for seed in 0 1 2; do
  local_scripts/train_cpu.sh $cro --seed $seed --output_dir $runs/racro_cro_seed$seed
done
torchrun --standalone --nproc_per_node=2 -m open_r1_vision.sft --config recipes/starter/reasoner.yaml \
  --max_steps 800 --output_dir $runs/better_reasoner
better='{"kind": "local", "model": "'$runs'/better_reasoner/final", "max_tokens": 64, "batch_size": 128}'
python eval/reread.py --run $runs/racro_cro_seed{0,1,2} --reasoner $cro "$better"

local_scripts/train_cpu.sh $grpo --output_dir $runs/racro_grpo
local_scripts/train_cpu.sh $cro --model_name_or_path $runs/racro_grpo/final --output_dir $runs/racro_grpo_cro
local_scripts/train_cpu.sh $grpo --model_name_or_path $runs/racro_cro_seed0/final --output_dir $runs/racro_cro_grpo
python eval/table.py $runs/racro_grpo $runs/racro_grpo_cro $runs/racro_cro_seed0 $runs/racro_cro_grpo
python eval/pairs.py --first $runs/racro_grpo_cro --second $runs/racro_cro_grpo --measure caption_exact
