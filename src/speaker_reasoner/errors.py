"""Every error this package raises on purpose.

    SpeakerReasonerError
    ├── AudioError          a recording cannot be read, or holds what cannot be heard
    ├── FormatError         a transcript file (or its text) does not follow its format
    ├── ProtocolError       a turn, trace, profile or prompt file breaks the dialogue's rules
    ├── CheckpointError     a model folder is incomplete, of another class, or does not fit
    ├── EngineError         an engine cannot answer: out of memory, context exceeded
    ├── SettingsError       what the user asked for contradicts itself, or does not fit the checkpoint
    ├── DataError           training or evaluation data is missing or contradicts itself
    ├── OutputError         a result cannot be written
    ├── ExtraError          a library of an extra is not installed
    ├── AnswerError         another system's answer is no transcript of the recording
    └── ServerError         a server cannot start, or a request cannot be served

Messages say what failed, where, what was got and expected, and the remedy, on one line. Exceptions
of libraries are converted once, where the library is called; bugs keep their own traceback.
"""

import os


def quoted(path: str | os.PathLike[str]) -> str:
    """Quote a path for a message, so that a name with a line break stays on one line."""
    return repr(os.fspath(path))


class SpeakerReasonerError(Exception):
    """Base of all expected failures; the command line prints its message and exits with 1."""


class AudioError(SpeakerReasonerError):
    """A recording cannot be decoded, or its samples are unusable."""


class FormatError(SpeakerReasonerError):
    """A transcript does not follow its format, or cannot be expressed in it."""


class ProtocolError(SpeakerReasonerError):
    """A turn, trace, profile or prompt file breaks the rules of the dialogue."""


class CheckpointError(SpeakerReasonerError):
    """A model folder is incomplete, of an unsupported class, or contradicts its own configuration."""


class EngineError(SpeakerReasonerError):
    """An engine could not produce an answer."""


class SettingsError(SpeakerReasonerError):
    """Options that contradict each other or do not fit the checkpoint."""


class DataError(SpeakerReasonerError):
    """Training or evaluation data is missing, unreadable or contradicts itself."""


class OutputError(SpeakerReasonerError):
    """A result could not be written."""


class ExtraError(SpeakerReasonerError):
    """A library that only some commands need is not installed."""


class AnswerError(SpeakerReasonerError):
    """Another system answered, and its answer is no transcript of the recording; or it gave none.

    Attributes:
        reason: one of `systems.base.REASONS`.
        raw: the answer as it came, JSON-ready; `None` where there is none.
    """

    def __init__(self, reason: str, message: str, raw: object = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.raw = raw


class ServerError(SpeakerReasonerError):
    """A server could not start, or a request could not be served."""


def first_line(error: Exception) -> str:
    """The first line of an error's message, without hints after it."""
    lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return text.partition(" For details")[0]
