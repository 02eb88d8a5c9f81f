#!/usr/bin/env bash
# As sft.sh, but with Megatron, which shards the experts: for many GPUs. LoRA of rank 8 on all projections
# of the text model, those of the experts included, each stage from the adapter of the last one.
#   pip install 'ms-swift==4.6.*' 'qwen_omni_utils>=0.0.9' decord soundfile, and Megatron as ms-swift's
#   manual ("Megatron-SWIFT") says
#   NPROC_PER_NODE=8 ./megatron.sh OUT
#   NPROC_PER_NODE=8 ./megatron.sh OUT --lr 5e-5   # what follows OUT goes to every `megatron sft`
# A stage that is done is passed over; one that was stopped begins anew.
set -euo pipefail

if [ "$#" -eq 0 ] || [[ "$1" == -* ]]; then
  echo "usage: megatron.sh OUT [option of megatron sft]..." >&2
  exit 2
fi
model=${MODEL:-Qwen/Qwen3-Omni-30B-A3B-Instruct}
[ ! -d "$model" ] || model=$(realpath "$model")
out=$(realpath -m "$1")
shift
cd "$(dirname "${BASH_SOURCE[0]}")"

export SWIFT_AUDIO_LOAD_BACKEND=${SWIFT_AUDIO_LOAD_BACKEND:-soundfile_pyav}
start=()
for stage in single_pass dialogues cached; do
  [ -f "$stage.jsonl" ] || continue
  if [ ! -e "$out/$stage/done" ]; then
    rm -rf "${out:?}/$stage"
    held=()
    [ ! -f "$stage.check.jsonl" ] || held=(--val_dataset "$stage.check.jsonl" --eval_steps 200)
    echo "== $stage"
    megatron sft \
      --model "$model" \
      --external_plugins plugin.py \
      --template speaker_reasoner \
      --preserve_thinking true \
      --add_non_thinking_prefix false \
      --loss_scale default \
      --dataset "$stage.jsonl" \
      "${held[@]}" \
      --strict true \
      --max_length 16384 \
      --tuner_type lora \
      --lora_rank 8 \
      --lora_alpha 32 \
      --target_modules all-linear \
      --freeze_llm false \
      --freeze_vit true \
      --freeze_aligner true \
      --merge_lora false \
      --torch_dtype bfloat16 \
      --expert_model_parallel_size "${NPROC_PER_NODE:-1}" \
      --moe_permute_fusion true \
      --moe_grouped_gemm true \
      --moe_aux_loss_coeff 1e-3 \
      --micro_batch_size 1 \
      --global_batch_size 32 \
      --recompute_granularity full \
      --recompute_method uniform \
      --recompute_num_layers 1 \
      --num_train_epochs 1 \
      --lr 1e-4 \
      --min_lr 1e-5 \
      --lr_warmup_fraction 0.05 \
      --save_steps 200 \
      --save_total_limit 2 \
      --dataloader_num_workers 4 \
      --output_dir "$out/$stage" \
      --add_version false \
      "${start[@]}" \
      "$@"
    touch "$out/$stage/done"
  fi
  last=$(find "$out/$stage" -maxdepth 1 -name 'checkpoint-*' | sort -V | tail -n 1)
  start=(--adapters "$last")
done
echo "adapter: ${start[1]}"
