#!/usr/bin/env bash
# Train on several machines: the same command on each of them, at about the same time.
#   NODES=2 ENDPOINT=first-machine:29400 local_scripts/train_nodes.sh recipes/qwen2_5_vl_7b/racro_cro.yaml recipes/hardware/2_nodes.yaml
# GPUS=8 processes each, 8 by default. ENDPOINT names one of the machines and a free port there. RUN_ID, the same on all,
# tells runs apart that share an endpoint. output_dir must lie on a file system that all machines share.
set -euo pipefail
recipe=${1:?"usage: NODES=2 ENDPOINT=HOST:PORT $0 RECIPE [OVERLAY ...] [--key value ...]"}
: "${NODES:?how many machines}" "${ENDPOINT:?HOST:PORT of one of them}"
exec torchrun --nnodes="$NODES" --nproc_per_node="${GPUS:-8}" --rdzv_backend=c10d --rdzv_endpoint="$ENDPOINT" \
  --rdzv_id="${RUN_ID:-open_r1_vision}" ${LOCAL_ADDR:+--local_addr="$LOCAL_ADDR"} \
  -m open_r1_vision.train --config "$recipe" "${@:2}"
