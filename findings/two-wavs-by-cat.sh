#!/usr/bin/env bash
# Two whole wav files joined by cat: the guess is that readers take the first, or both. soundfile 0.14.0 (libsndfile 1.2.2)
# opens neither: "No 'RIFF' chunk marker", though the file begins with RIFF; 100 zeros or 40 letters behind the sound do
# not trouble it. PyAV 18.1.0 (FFmpeg) reads the first half without a complaint. Exits 0 while that is so. Takes pip, and
# PyPI for some 60 MB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install soundfile==0.14.0 av==18.1.0 numpy
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys
from pathlib import Path

import av
import numpy as np
import soundfile

folder = Path(sys.argv[1])
soundfile.write(folder / "one.wav", np.full(16_000, 0.1), 16_000)
one = (folder / "one.wav").read_bytes()
results = []
for tail in (b"", one, bytes(100), b"abcd" * 10):
    path = folder / "joined.wav"
    path.write_bytes(one + tail)
    try:
        results.append(soundfile.info(path).frames)
    except soundfile.LibsndfileError as error:
        results.append(str(error).split(": ")[-1])
    with av.open(str(path)) as container:
        results.append(sum(frame.samples for frame in container.decode(audio=0)))
print("soundfile, PyAV; alone, twice, with zeros, with letters:", results)
assert results[:2] == results[4:6] == results[6:] == [16_000, 16_000]
assert results[2] == "Error in WAV file. No 'RIFF' chunk marker." and results[3] == 16_000
PY
