#!/bin/bash
# A training on several nodes: one launcher a node, one process a GPU. Give it again after a failure: it goes on from its last save,
# also with another number of nodes, as long as run.batches_per_step is a multiple of all processes.
#   sbatch --nodes=2 examples/slurm-train.sh my.toml -o /shared/runs/mine --data s3://bucket/prepared/train/shards
# Weights that one GPU does not hold are sharded by accelerate's own variables: see docs/training.md.
#SBATCH --job-name=train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --requeue
set -euo pipefail
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
exec srun torchrun \
  --nnodes="$SLURM_JOB_NUM_NODES" \
  --nproc-per-node="${SLURM_GPUS_ON_NODE:-8}" \
  --rdzv-backend=c10d \
  --rdzv-endpoint="$first:${PORT:-29500}" \
  --rdzv-id="$SLURM_JOB_ID" \
  -m speaker_reasoner train "$@"
