#!/usr/bin/env bash
# faster-whisper 1.2.1 ships Silero's detector as "silero_vad_v6.onnx", silero-vad 6.2.3 ships it as "silero_vad.onnx".
# Guess: the same network, so the same probabilities. They are two networks: on the same sentences of
# espeak's, fed as each package feeds them, probabilities of the same frame differ by more than 0.3.
# Exits 0 while that is so. Takes pip, and PyPI for about 60 MB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip --quiet --disable-pip-version-check"
$pip install numpy==2.2.6 onnxruntime==1.23.2 espeakng-loader==0.2.4
$pip install --no-deps faster-whisper==1.2.1
$pip download --no-deps --dest "$folder" silero-vad==6.2.3
(cd "$folder" && python3 -m zipfile -e silero_vad-*.whl .)
"$folder/venv/bin/python" - "$folder" <<'PY'
import ctypes
import sys
from pathlib import Path

import espeakng_loader
import numpy as np
import onnxruntime

folder = Path(sys.argv[1])
espeak = ctypes.CDLL(espeakng_loader.get_library_path())
rate = espeak.espeak_Initialize(2, 0, str(Path(espeakng_loader.get_data_path()).parent).encode(), 0)
parts = []


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
def keep(wave, count, events):
    if wave and count:
        parts.append(np.ctypeslib.as_array(wave, (count,)).copy())
    return 0


espeak.espeak_SetSynthCallback(keep)
said = b"Good morning. Shall we begin with the budget? I have three questions, and then we can go home early."
espeak.espeak_Synth(said, len(said) + 1, 0, 1, 0, 1, None, None)
samples = np.concatenate(parts).astype(np.float32) / 32768
at = np.arange(int(len(samples) * 16_000 / rate)) * rate / 16_000
samples = np.interp(at, np.arange(len(samples)), samples).astype(np.float32)
frames = samples[: len(samples) // 512 * 512].reshape(-1, 512)
[bundled] = (folder / "venv").glob("lib/python3*/site-packages/faster_whisper/assets/silero_vad_v6.onnx")

# As faster_whisper.vad.SileroVADModel: all frames in one call, each behind the last 64 samples of the one before.
before = np.concatenate([np.zeros((1, 64), np.float32), frames[:-1, -64:]])
zeros = np.zeros((1, 1, 128), np.float32)
one = onnxruntime.InferenceSession(str(bundled)).run(
    None, {"input": np.concatenate([before, frames], axis=1), "h": zeros, "c": zeros}
)[0].ravel()

# As silero_vad.utils_vad.OnnxWrapper: frame by frame, with a state.
network = onnxruntime.InferenceSession(str(folder / "silero_vad/data/silero_vad.onnx"))
state, other = np.zeros((2, 1, 128), np.float32), []
for context, frame in zip(before, frames, strict=True):
    heard = np.concatenate([context, frame])[None]
    probability, state = network.run(
        None, {"input": heard, "state": state, "sr": np.array(16_000, np.int64)}
    )
    other.append(float(probability[0, 0]))
other = np.array(other)

apart = np.abs(one - other)
sides = float(((one >= 0.5) != (other >= 0.5)).mean())
print(f"faster-whisper 1.2.1 against silero-vad 6.2.3, {len(frames)} frames of 32 ms")
print(f"largest difference {apart.max():.2f}, mean {apart.mean():.3f}, on the other side of 0.5: {sides:.1%}")
sys.exit(0 if apart.max() > 0.3 else 1)
PY
