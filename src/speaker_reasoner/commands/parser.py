"""The argument parser of every command: unknown words are answered with the nearest known one."""

import argparse
import difflib
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NoReturn


class Help(argparse.HelpFormatter):
    """Wraps descriptions to the terminal, but keeps lines that begin with a space (examples).

    An example that is too long is continued after a backslash, so that it can be pasted.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._action_max_length = 14  # argparse forgets the indent of commands, and breaks the line

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        shown: list[str] = []
        kinds = groupby(text.splitlines(), key=lambda line: line and line[:1].isspace())
        for kind, lines in kinds:
            if kind is True:
                for line in lines:
                    together = re.sub(r" (--?\w\S*) (?=[^-\s])", " \\1\0", line)  # option and value
                    parts = _wrap(together, width - 2, "    ")
                    shown += " \\\n".join(parts).replace("\0", " ").splitlines()
            else:
                shown += _wrap(" ".join(lines), width) or [""]
        return "\n".join(indent + line for line in shown)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors name the nearest known word, with the usage of the command itself.

    argparse leaves unknown arguments of a command to the program, which then shows its own usage.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "formatter_class": Help})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See `ArgumentParser`; nothing unknown is left."""
        words = list(self._spelled(sys.argv[1:] if args is None else args))
        self._check_options(words)
        options, unknown = super().parse_known_args(words, namespace)
        if unknown:
            self.error(f"unexpected argument: {' '.join(unknown)}")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """See `ArgumentParser`; characters that would control the terminal are escaped."""
        super().error("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))

    def _spelled(self, words: Iterable[str]) -> Iterator[str]:
        """Other transcribers write `--batch_size` or `--output_dir`: hyphens where only they make a known option."""
        options = True
        for word in words:
            options = options and word != "--"
            name, equals, value = word.partition("=")
            ours = name.replace("_", "-")
            known = self._option_string_actions
            yield ours + equals + value if options and name not in known and ours in known else word

    def _check_options(self, words: Sequence[str]) -> None:
        """Refuse the first option that this parser does not know."""
        known = self._option_string_actions
        has_commands = self._subparsers is not None
        for word in words:
            if word == "--" or (has_commands and not word.startswith("-")):
                return
            name = word.partition("=")[0]
            if not word.startswith("-") or word[1:2] in ("", *"0123456789.") or " " in name:
                continue  # a value: -, -1
            short = not name.startswith("--")
            if (short and name[:2] in known) or any(option.startswith(name) for option in known):
                continue
            self.error(f"unknown option: {name}{self._meant(name)}")

    def _meant(self, option: str) -> str:
        owners = [
            name for name, command in commands_of(self) if option in command._option_string_actions
        ]
        if owners:
            return f"; it goes behind the command that takes it: {', '.join(owners)}"
        return _nearest(option, self._option_string_actions)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if not arg_string and action.nargs != argparse.PARSER:  # a path would take it for "."
            raise argparse.ArgumentError(action, "got an empty value (of an unset variable?)")
        return super()._get_value(action, arg_string)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        of_commands = isinstance(action, argparse._SubParsersAction)
        if of_commands and os.path.lexists(value):  # as with other transcribers
            hint = f"; to transcribe it: {self.prog} transcribe FILE"
        else:
            hint = _nearest(str(value), choices)
        raise argparse.ArgumentError(
            action, f"invalid choice: {value!r}{hint} (choose from {', '.join(choices)})"
        )


def commands_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command below a parser with its full name: `evaluate`, `evaluate score`, ..."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield name, command
                yield from ((f"{name} {verb}", below) for verb, below in commands_of(command))


def _nearest(word: str, known: Iterable[str]) -> str:
    bare = {name.lstrip("-"): name for name in known}
    near = difflib.get_close_matches(word.lstrip("-"), bare, n=1)
    return f", did you mean {bare[near[0]]}?" if near else ""


def _wrap(text: str, width: int, further: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )
