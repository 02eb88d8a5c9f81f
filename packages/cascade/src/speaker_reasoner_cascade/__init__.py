"""Weights of the cascade that `speaker-reasoner` uses for real speech. Data alone: see README.md.

`FOLDER` holds `whisper-base/` (CTranslate2, 8-bit weights), the networks that tell speakers apart and their genders,
and `SHA256SUMS`, which lists them all.
"""

from pathlib import Path

FOLDER = Path(__file__).parent / "weights"
__version__ = "0.2.0"
