#!/usr/bin/env bash
# The stages of this export with ms-swift 4.6, one after the other: LoRA of rank 8 on the attention of the
# text model, each stage from the adapter of the last one.
#   pip install 'ms-swift==4.6.*' 'qwen_omni_utils>=0.0.9' decord soundfile deepspeed
#   NPROC_PER_NODE=8 ./sft.sh OUT
#   MODEL=DIR ./sft.sh OUT --learning_rate 5e-5    # what follows OUT goes to every `swift sft`
# A stage that is done is passed over; one that was stopped goes on from its last checkpoint.
set -euo pipefail

if [ "$#" -eq 0 ] || [[ "$1" == -* ]]; then
  echo "usage: sft.sh OUT [option of swift sft]..." >&2
  exit 2
fi
model=${MODEL:-Qwen/Qwen3-Omni-30B-A3B-Instruct}
[ ! -d "$model" ] || model=$(realpath "$model")
out=$(realpath -m "$1")
shift
cd "$(dirname "${BASH_SOURCE[0]}")"

# librosa, the default, is not needed for FLAC at 16 kHz.
export SWIFT_AUDIO_LOAD_BACKEND=${SWIFT_AUDIO_LOAD_BACKEND:-soundfile_pyav}
sharded=()
[ "${NPROC_PER_NODE:-1}" -eq 1 ] || sharded=(--deepspeed zero2)

last_checkpoint() {
  find "$1" -maxdepth 1 -name 'checkpoint-*' | sort -V | tail -n 1
}

start=()
for stage in single_pass dialogues cached; do
  [ -f "$stage.jsonl" ] || continue
  if [ ! -e "$out/$stage/done" ]; then
    mkdir -p "$out/$stage"
    stopped=$(last_checkpoint "$out/$stage")
    [ -z "$stopped" ] || start=(--resume_from_checkpoint "$stopped")
    held=()
    [ ! -f "$stage.check.jsonl" ] || held=(--val_dataset "$stage.check.jsonl" --eval_steps 200)
    echo "== $stage"
    # strict: a dialogue that is too long or has no audio stops the run; otherwise ms-swift silently
    # takes another one in its place.
    swift sft \
      --model "$model" \
      --external_plugins plugin.py \
      --template speaker_reasoner \
      --preserve_thinking true \
      --add_non_thinking_prefix false \
      --loss_scale default \
      --dataset "$stage.jsonl" \
      "${held[@]}" \
      --strict true \
      --lazy_tokenize true \
      --max_length 16384 \
      --tuner_type speaker_reasoner \
      --lora_rank 8 \
      --lora_alpha 32 \
      --torch_dtype bfloat16 \
      --num_train_epochs 1 \
      --per_device_train_batch_size 1 \
      --gradient_accumulation_steps 4 \
      --gradient_checkpointing true \
      --learning_rate 1e-4 \
      --lr_scheduler_type cosine \
      --warmup_ratio 0.05 \
      --save_steps 200 \
      --save_total_limit 2 \
      --logging_steps 5 \
      --dataloader_num_workers 4 \
      --output_dir "$out/$stage" \
      --add_version false \
      "${sharded[@]}" \
      "${start[@]}" \
      "$@"
    touch "$out/$stage/done"
  fi
  start=(--adapters "$(last_checkpoint "$out/$stage")")
done
echo "adapter: ${start[1]}"
