"""Open recordings of any file format and decode them, checked against what their headers state."""

from .blocks import AnyPath, Block, Source
from .opening import check_readable, open_source

__all__ = ["AnyPath", "Block", "Source", "check_readable", "open_source"]
