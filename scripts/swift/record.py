"""A plugin of ms-swift that writes the output of its template for each dialogue to the file $RECORD."""

import json
import os
from pathlib import Path
from typing import Any

from swift.template import TEMPLATE_MAPPING

_template = TEMPLATE_MAPPING["speaker_reasoner"].template_cls
_encode = _template.encode


def _recorded(self: Any, inputs: Any, *arguments: Any, **settings: Any) -> Any:
    encoded = _encode(self, inputs, *arguments, **settings)
    row = {
        "messages": inputs["messages"],
        "audios": inputs["audios"],
        "ids": encoded["input_ids"],
        "labels": encoded["labels"],
    }
    with Path(os.environ["RECORD"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    return encoded


_template.encode = _recorded
