#!/usr/bin/env bash
# pyannote.metrics 4.2.0: the Jaccard error rate of DIHARD maps speakers so that the rate itself is least (dscore); the
# guess is that JaccardErrorRate does. It takes the mapping of the DER, the most shared time: one person speaks 2.0 s, one
# system speaker covers all of it and 8 s more, another one 1.9 s of it and nothing else. JER 80 %, where 5 % is the
# least. Exits 0 while that is so. Takes pip, and PyPI for some 100 MB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install pyannote.metrics==4.2.0
"$folder/venv/bin/python" -W ignore - <<'PY'
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import JaccardErrorRate

reference, hypothesis = Annotation(), Annotation()
reference[Segment(0, 2)] = "A"
hypothesis[Segment(0, 10), 0] = "x"
hypothesis[Segment(0, 1.9), 1] = "y"
got = JaccardErrorRate()(reference, hypothesis, uem=Timeline([Segment(0, 10)]))
spoken = reference.label_timeline("A")
by_speaker = {
    label: 1 - spoken.crop(other).duration() / spoken.union(other).support().duration()
    for label in hypothesis.labels()
    for other in [hypothesis.label_timeline(label)]
}
print(f"JaccardErrorRate {got:.3f}; with x {by_speaker['x']:.3f}, with y {by_speaker['y']:.3f}")
assert abs(got - 0.8) < 1e-6 and abs(by_speaker["y"] - 0.05) < 1e-6
PY
