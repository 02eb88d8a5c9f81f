"""The records of a checkpoint's ancestors.

A record names the checkpoints that training started from. Under `before` it holds the records of all ancestors
by name, each once.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def named(record: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of a record (a hash), and the `before` of its descendants: the record and its ancestors."""
    entry = {key: value for key, value in record.items() if key != "before"}
    name = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:12]
    return name, {**record.get("before", {}), name: entry}
