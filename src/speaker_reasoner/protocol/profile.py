"""Profiles: the wording that a checkpoint was trained with, and the limits of its input and output.

A profile is saved beside the weights as `speaker_reasoner.json`. The released checkpoints carry no
such file: the built-in `released` profile plus the prompt file published with them takes its place.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import ProtocolError
from .markup import MARKUP

PROFILE_FILE = "speaker_reasoner.json"


@dataclass(frozen=True, slots=True)
class Wording:
    """The words of one language: prompts of the user turns and single-turn tasks, labels, overview.

    `{n}` is a number, `{gender}` a gender word, `{turn}` the number of the observation from 1.
    """

    initial_text: str
    turn_text: str
    tasks: Mapping[str, str]
    speaker: str
    genders: Mapping[str, str]
    overview: str
    overview_one: str
    separator: str
    colon: str

    def label(self, number: int, gender: str) -> str:
        """The label of a speaker, as the model writes it."""
        return self.speaker.format(n=number, gender=self.genders[gender])


WORDINGS = {
    "en": Wording(
        initial_text="Who said what, and when? Count the speakers, then box the first stretch.",
        turn_text="",
        tasks={
            "base": "Write who said what, and when, in one pass.",
            "sot": "Write what was said; start a line where the speaker changes.",
            "times": "Write who spoke when, in one pass.",
            "count": "Count the speakers.",
        },
        speaker="Speaker{n}-{gender}",
        genders={"female": "female", "male": "male", "unknown": "unknown"},
        overview="{n} speakers",
        overview_one="1 speaker",
        separator=", ",
        colon=": ",
    ),
    "zh": Wording(
        initial_text="谁在何时说了什么？先数出说话人，再框出第一段。",
        turn_text="",
        tasks={
            "base": "一次写出谁在何时说了什么。",
            "sot": "写出说了什么，换人时另起一行。",
            "times": "一次写出谁在何时说话。",
            "count": "数出说话人。",
        },
        speaker="说话人{n}-{gender}",
        genders={"female": "女", "male": "男", "unknown": "未知"},
        overview="{n}位说话人",
        overview_one="1位说话人",
        separator="，",
        colon="：",
    ),
}


@dataclass(frozen=True, slots=True)
class Profile:
    """A checkpoint's variant of the protocol: wording, layout and limits.

    Attributes:
        name: `native` (our wording and layout, to the letter) or `released` (free wording).
        language: key of `WORDINGS`; decides prompts, labels and overview.
        decimals: decimals of a time as written by the model.
        chunk_s: longest audio that the model takes at once, in seconds.
        max_turns: most observations in one dialogue (100 in the released runner).
        max_speakers: largest speaker number the model may write.
        cache_s: longest speaker cache that the checkpoint was trained with, in seconds; 0 if it was
            trained without one, and speaker embeddings alone must link the speakers of its chunks.
        cache_by_default: whether the cache is used unless the caller decides; without it, several
            chunks are transcribed at a time, and speaker embeddings link them.
        initial_text: instruction of the first user turn; empty means the wording's own.
        turn_text: text of the later user turns; empty means the wording's own.
        domain: recordings that the checkpoint is for, in one sentence for users.
        word_confidence_floor: mean word probability under which a recording is reported as foreign
            to the checkpoint's domain; `None` where it was never measured.
        training: record of the training run: stage, configuration, commit (JSON-ready).
    """

    name: str = "native"
    language: str = "en"
    decimals: int = 2
    chunk_s: float = 50.0
    max_turns: int = 100
    max_speakers: int = 16
    cache_s: float = 0.0
    cache_by_default: bool = True
    initial_text: str = ""
    turn_text: str = ""
    domain: str = ""
    word_confidence_floor: float | None = None
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in ("native", "released"):
            raise ProtocolError(f"profile: name {self.name!r} is neither 'native' nor 'released'")
        if self.language not in WORDINGS:
            raise ProtocolError(
                f"profile: language {self.language!r} is not one of {', '.join(WORDINGS)}"
            )
        if self.decimals not in (1, 2, 3):
            raise ProtocolError(f"profile: decimals {self.decimals} is not 1, 2 or 3")
        if not 1.0 <= self.chunk_s <= 3600.0:
            raise ProtocolError(f"profile: chunk_s {self.chunk_s} is not within 1..3600 seconds")
        if self.max_turns < 1 or self.max_speakers < 1:
            raise ProtocolError("profile: max_turns and max_speakers must be at least 1")
        if not isinstance(self.training, Mapping):  # a saved null would not be read again
            raise ProtocolError(
                f"profile: training {self.training!r} is not a record; {{}} for none"
            )

    @property
    def wording(self) -> Wording:
        return WORDINGS[self.language]

    @property
    def strict(self) -> bool:
        """Return whether turns follow our own layout to the letter."""
        return self.name == "native"

    @property
    def ticks_per_s(self) -> int:
        """Resolution of written times: a tick is the last decimal."""
        return int(10**self.decimals)

    def save(self, folder: Path) -> None:
        text = json.dumps(asdict(self), ensure_ascii=False, indent=2)
        (folder / PROFILE_FILE).write_text(text + "\n", encoding="utf-8")


def load_profile(folder: Path) -> Profile | None:
    """Read a checkpoint's profile; `None` where the folder has none.

    Raises:
        ProtocolError: the file is not JSON, or holds unknown or impossible settings.
    """
    path = folder / PROFILE_FILE
    if not path.exists():
        return None
    return profile_of(_read_object(path), str(path))


def profile_of(values: Any, where: str) -> Profile:
    """The profile that a JSON object says.

    Raises:
        ProtocolError: it holds unknown or impossible settings.
    """
    if not isinstance(values, dict):
        raise ProtocolError(f"{where}: expected an object, got {type(values).__name__}")
    unknown = sorted(set(values) - {f.name for f in fields(Profile)})
    if unknown:
        raise ProtocolError(
            f"{where}: unknown settings {', '.join(unknown)}; is it of a later version?"
        )
    for name, value in values.items():
        if not _fits(value, getattr(Profile(), name)):
            raise ProtocolError(
                f"{where}: setting {name!r} is of the wrong type: {type(value).__name__}"
            )
    return Profile(**values)


def released_profile(prompts: Path) -> Profile:
    """The profile of a released checkpoint, from the prompt file published beside it.

    Args:
        prompts: JSON with the keys `chat_template`, `initial_user_text`, `turn_user_text`.

    Raises:
        ProtocolError: the file is missing, lacks a key, or its chat template is not Qwen's plain
            one (then our traces would not be what that model was trained on).
    """
    values = _read_object(prompts)
    for key in ("chat_template", "initial_user_text", "turn_user_text"):
        if not isinstance(values.get(key), str):
            raise ProtocolError(f"{prompts}: expected text under {key!r}; is it a prompt file?")
    _check_chat_template(values["chat_template"], prompts)
    language = "zh" if any("一" <= c <= "鿿" for c in values["initial_user_text"]) else "en"
    return replace(
        Profile(name="released", language=language, decimals=2, chunk_s=50.0),
        initial_text=values["initial_user_text"],
        turn_text=values["turn_user_text"],
    )


def _fits(value: Any, default: Any) -> bool:
    """Return whether a value read from JSON is of its setting's type."""
    if isinstance(default, float) or default is None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number or (value is None and default is None)
    if isinstance(default, int) and not isinstance(default, bool):
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, type(default))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProtocolError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ProtocolError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(values, dict):
        raise ProtocolError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values


def _check_chat_template(template: str, where: Path) -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    probe: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "Q"}]},
        {"role": "assistant", "content": "A"},
    ]
    expected = MARKUP.user_open + MARKUP.audio + MARKUP.audio_close + "Q" + MARKUP.user_close
    expected += "A" + MARKUP.end + "\n"
    try:
        got = ImmutableSandboxedEnvironment().from_string(template).render(messages=probe)
    except Exception as error:  # a template is a program: it raises what it likes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ProtocolError(f"{where}: the chat template does not render: {reason}") from error
    if got != expected:
        raise ProtocolError(
            f"{where}: unsupported chat template: expected {expected!r} for one turn, got {got!r}"
        )
