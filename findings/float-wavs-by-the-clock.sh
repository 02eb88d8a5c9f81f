#!/usr/bin/env bash
# The same samples written twice as a WAV file: the guess is the same bytes. Of 16 or 24 bits they are. Of floats,
# soundfile 0.14.0 (libsndfile 1.2.2) adds a PEAK chunk with the time of day in seconds, so that a hash of the file
# changes every second: no name for a cache. PyAV 18.1.0 (FFmpeg) writes the same bytes. Exits 0 while that is so. Takes
# pip, and PyPI for some 60 MB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install soundfile==0.14.0 av==18.1.0 numpy
"$folder/venv/bin/python" - <<'PY'
import io
import time

import av
import numpy as np
import soundfile

samples = np.linspace(-0.5, 0.5, 1600, dtype=np.float32)


def by_soundfile(subtype):
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype=subtype)
    return file.getvalue()


def by_pyav():
    file = io.BytesIO()
    with av.open(file, "w", format="wav") as container:
        stream = container.add_stream("pcm_f32le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


KINDS = ("PCM_16", "PCM_24", "FLOAT", "DOUBLE")
before = [by_soundfile(kind) for kind in KINDS] + [by_pyav()]
time.sleep(1.2)
after = [by_soundfile(kind) for kind in KINDS] + [by_pyav()]
same = dict(zip((*KINDS, "PyAV floats"), (a == b for a, b in zip(before, after)), strict=True))
print("the same bytes a second later:", same)
one, other = before[2], after[2]
places = [i for i, (a, b) in enumerate(zip(one, other)) if a != b]
print("they differ at", places, "after", one[48:52])
assert same == {"PCM_16": True, "PCM_24": True, "FLOAT": False, "DOUBLE": False, "PyAV floats": True}
assert one[48:52] == b"PEAK" and all(60 <= place < 64 for place in places)
PY
