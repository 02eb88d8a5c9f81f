"""Write the blocks of the documentation that stored results determine, between their markers; `blocks` has them.

python benchmarks/tables.py          # write
python benchmarks/tables.py --check  # exit 1 if a table is not what the results say
"""

import argparse
import re
import sys

from blocks import (
    embedded,
    engines,
    evaluation,
    real_speech,
    scale,
    server,
    small,
    stages,
    training,
    whole_meetings,
)
from blocks.stored import ROOT

FILES = (
    ROOT / "README.md",
    ROOT / "src/speaker_reasoner/checkpoints/tiny/README.md",
    ROOT / "docs/embedded.md",
    ROOT / "docs/real-speech.md",
    ROOT / "docs/speed.md",
    ROOT / "docs/server.md",
    ROOT / "docs/servers.md",
    ROOT / "docs/evaluation.md",
    ROOT / "docs/whole-meetings.md",
    ROOT / "docs/stages.md",
    ROOT / "docs/engines.md",
    ROOT / "docs/scale.md",
    ROOT / "docs/training.md",
    ROOT / "docs/compose.md",
)

BLOCKS = {
    **embedded.BLOCKS,
    **engines.BLOCKS,
    **evaluation.BLOCKS,
    **real_speech.BLOCKS,
    **scale.BLOCKS,
    **server.BLOCKS,
    **small.BLOCKS,
    **stages.BLOCKS,
    **training.BLOCKS,
    **whole_meetings.BLOCKS,
}
"""The content between the markers of each name."""


def filled(text: str) -> str:
    for name, render in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if pattern.search(text):
            table = render()
            text = pattern.sub(lambda m, table=table: f"{m.group(1)}{table}\n{m.group(2)}", text)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stale = 0
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        new = filled(text)
        if new != text:
            stale += 1
            print(
                f"{path.relative_to(ROOT)}: {'is not' if arguments.check else 'now is'} what the results say"
            )
            if not arguments.check:
                path.write_text(new, encoding="utf-8")
    return 1 if stale and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
