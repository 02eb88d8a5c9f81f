#!/usr/bin/env bash
# AssemblyAI's types with pydantic 2 installed: the guess is that they are pydantic 2's models. assemblyai 1.8.2 makes them
# of pydantic.v1, which pydantic 2 brings along, unless pydantic-settings is installed too, which it does not require: then
# the same types are pydantic 2's. So model_dump is there or not, and validation errors are of one class or the other, by a
# package that nobody asked for. Exits 0 while that is so. Takes pip, and PyPI for some 20 MB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check install)
look='import assemblyai; raw = assemblyai.TranscriptionConfig().raw
print(hasattr(raw, "model_dump"), type(raw).__mro__[1:3])'
"${pip[@]}" assemblyai==1.8.2 pydantic==2.14.4
alone=$("$folder/venv/bin/python" -W ignore -c "$look")
"${pip[@]}" pydantic-settings==2.12.0
beside=$("$folder/venv/bin/python" -W ignore -c "$look")
echo "assemblyai 1.8.2, pydantic 2.14.4: model_dump: $alone; with pydantic-settings: $beside"
[ "${alone%% *}" = False ] && [ "${beside%% *}" = True ]
