#!/usr/bin/env bash
# A recording in which nobody speaks has an empty SupervisionSet: the guess is that lhotse writes it and reads it back
# empty. lhotse 1.33.0 writes the file (0 bytes, or an empty gzip), and from_file of SupervisionSet, RecordingSet and
# CutSet alike returns None, without an error or a warning; the first use of it fails somewhere else. Exits 0 while that
# is so. Takes pip, and PyPI for torch and lhotse.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
  lhotse==1.33.0 torch==2.13.0 urllib3==2.5.0
"$folder/venv/bin/python" -W error::UserWarning - "$folder" <<'PY'
import sys
from pathlib import Path

import lhotse
from lhotse import CutSet, RecordingSet, SupervisionSet

print("lhotse", lhotse.__version__)
seen = []
for suffix in (".jsonl", ".jsonl.gz"):
    for kind in (SupervisionSet, RecordingSet, CutSet):
        path = Path(sys.argv[1]) / f"{kind.__name__}{suffix}"
        kind.from_items([]).to_file(path)
        seen.append(kind.from_file(path))
        print(path.name, path.stat().st_size, "bytes, read as", seen[-1])
assert seen == [None] * 6
PY
