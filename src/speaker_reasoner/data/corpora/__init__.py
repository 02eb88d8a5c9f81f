"""Corpora: found, checked, cut into pieces, and written down for training and evaluation.

notes.py    rows and what is wrong with them      formats.py  annotation files to rows
recipes.py  the layout of each corpus             ami.py      AMI's annotation
prepare.py  pieces, references, manifest, report
"""

from .prepare import Chunk, chunks, prepare
from .recipes import CORPORA

__all__ = ["CORPORA", "Chunk", "chunks", "prepare"]
