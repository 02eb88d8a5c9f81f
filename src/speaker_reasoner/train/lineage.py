"""How checkpoints came to be: the record of each is told once, however often others descend from it.

A record names those it came from; under `before` it holds their records, and those of all before them,
by name.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def named(record: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name that descendants give a record, and what they hold under `before`: it and what it holds
    there itself."""
    entry = {key: value for key, value in record.items() if key != "before"}
    name = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:12]
    return name, {**record.get("before", {}), name: entry}
