"""Record the README's picture of the command line from a real run on the example recording.

python scripts/render_look.py
"""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from speaker_reasoner import Transcriber, load_engine
from speaker_reasoner.commands.screen import Screen

ROOT = Path(__file__).parent.parent
COMMAND = "speaker-reasoner transcribe examples/ami.flac"


def main() -> None:
    console = Console(record=True, width=104, force_terminal=True, color_system="truecolor")
    path = ROOT / "examples" / "ami.flac"
    screen = Screen([path], lines=True, quiet=False, console=console)
    console.print(Text("$ ", "bold green") + Text(COMMAND))
    transcriber = Transcriber(load_engine())
    screen.finish(path, transcriber.transcribe(path, screen.turn))
    target = ROOT / "docs" / "images" / "cli.svg"
    target.parent.mkdir(parents=True, exist_ok=True)
    console.save_svg(str(target), title="speaker-reasoner")
    print(f"wrote {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
