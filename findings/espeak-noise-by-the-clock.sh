#!/usr/bin/env bash
# espeak-ng 1.52 (espeakng-loader 0.2.4): a formant synthesiser, so the guess is that a sentence gives the same samples
# each time. Its breathy voices are part noise, seeded by the second in which the library was set up: processes that
# begin in different seconds speak different samples, a voice without breath the same ones. espeak_ng_SetRandSeed
# makes it one. Exits 0 while that is so. Takes pip, and PyPI for 10 MB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install espeakng-loader==0.2.4
cat > "$folder/speak.py" <<'PY'
import ctypes
import hashlib
import sys
from pathlib import Path

import espeakng_loader

voice, seed = sys.argv[1], sys.argv[2]
espeak = ctypes.CDLL(espeakng_loader.get_library_path())
espeak.espeak_Initialize(2, 0, str(Path(espeakng_loader.get_data_path()).parent).encode(), 0)
if seed != "none":
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(int(seed)))
digest = hashlib.sha256()


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
def keep(wave, count, events):
    if wave and count > 0:
        digest.update(ctypes.string_at(wave, 2 * count))
    return 0


espeak.espeak_SetSynthCallback(keep)
assert espeak.espeak_SetVoiceByName(f"en-us+{voice}".encode()) == 0
said = b"Good morning. Shall we begin with the budget?"
espeak.espeak_Synth(said, len(said) + 1, 0, 1, 0, 1, None, None)
print(digest.hexdigest()[:12])
PY
speak() { "$folder/venv/bin/python" "$folder/speak.py" "$@"; }
plain=$(speak Michael none) && breathy=$(speak f3 none) && seeded=$(speak f3 1)
sleep 2
plain2=$(speak Michael none) && breathy2=$(speak f3 none) && seeded2=$(speak f3 1)
echo "espeak-ng 1.52, two seconds apart: Michael $plain $plain2, f3 (breathy) $breathy $breathy2, f3 with a seed $seeded $seeded2"
[ "$plain" = "$plain2" ] && [ "$breathy" != "$breathy2" ] && [ "$seeded" = "$seeded2" ]
