"""Corpora: read, checked, cut into pieces, and written as files for training and evaluation.

notes.py    rows and their faults                 formats.py  annotation files to rows
recipes.py  the layout of each corpus             ami.py      AMI's annotation
lhotse_recipes.py  corpora that lhotse reads
prepare.py  pieces, references, manifest, report   shards.py  pieces with their audio, in tar files
"""

from .prepare import CorpusPiece, load_pieces, parse_pieces, prepare
from .recipes import CORPORA

__all__ = ["CORPORA", "CorpusPiece", "load_pieces", "parse_pieces", "prepare"]
