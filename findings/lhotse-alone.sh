#!/usr/bin/env bash
# pip install lhotse, then import lhotse: the guess is that it can be imported. lhotse 1.33.0 imports urllib3
# (lhotse/ais/batch_loader.py), which neither it nor anything that it requires asks for: ModuleNotFoundError in an
# environment of its own; with urllib3 beside it all is well. Most environments have urllib3 through requests, which hides it.
# Exits 0 while that is so. Takes pip, and PyPI for torch and lhotse.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check install)
"${pip[@]}" lhotse==1.33.0 torch==2.13.0
said=$("$folder/venv/bin/python" -c "import lhotse" 2>&1 | tail -1 || true)
"${pip[@]}" urllib3==2.5.0
version=$("$folder/venv/bin/python" -c "import lhotse; print(lhotse.__version__)")
echo "alone: $said; with urllib3: $version"
[ "$said" = "ModuleNotFoundError: No module named 'urllib3'" ] && [ "$version" = 1.33.0 ]
