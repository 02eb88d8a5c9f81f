"""`speaker-reasoner completion`: scripts by which shells complete commands, options and files."""

import argparse
from functools import partial
from pathlib import Path

from .parser import commands_of

_SHELLS = ("bash", "zsh", "fish")
_EXAMPLES = """examples:
  eval "$(speaker-reasoner completion bash)"            # in ~/.bashrc
  speaker-reasoner completion zsh > ~/.zfunc/_speaker-reasoner
  speaker-reasoner completion fish > ~/.config/fish/completions/speaker-reasoner.fish
"""


def add_completion(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    program: argparse.ArgumentParser,
) -> None:
    """Add the command, which completes `program`."""
    command = commands.add_parser(
        "completion",
        help="completion of commands, options and files in a shell",
        description="Print a script by which a shell completes the command line.",
        epilog=_EXAMPLES,
    )
    command.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=", ".join(_SHELLS))
    command.set_defaults(run=partial(_completion, program), parser=command)


def _completion(program: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    import shtab

    for _, command in commands_of(program):
        for action in command._actions:
            named = str(action.metavar)
            if named in ("DIR", "FOLDER", "OUT"):
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.type is Path or named in (
                "FILE",
                "CONFIG",
                "MODEL",
                "PATH|HUB_ID",
                "MODEL|CONFIG",
            ):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(program, shell=arguments.shell))
    return 0
