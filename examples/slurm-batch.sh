#!/bin/bash
# 8 shards of a source, one a GPU, then the tables. Give it again after a failure: what is done is skipped. Further words are options
# of `batch`, as --model DIR. Without GPUs: sbatch --gpus=0.
#   jobs=$(sbatch --parsable examples/slurm-batch.sh manifest.jsonl /shared/transcripts)
#   sbatch --dependency=afterany:$jobs --wrap "speaker-reasoner batch merge /shared/transcripts -f jsonl,parquet"
#SBATCH --job-name=transcribe
#SBATCH --array=1-8
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --requeue
set -euo pipefail
exec speaker-reasoner batch "$1" -o "$2" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" "${@:3}"
