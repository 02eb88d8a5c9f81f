"""A trace as chat messages, the input of chat servers and of other trainers.

The markup that a chat template puts around turns and audio is left out; the content of a message is text and
audio parts in their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ProtocolError
from .markup import MARKUP
from .trace import Answer, Audio, Part, Text


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    Attributes:
        role: `user` or `assistant`.
        content: text and audio parts in order; an assistant's is one text.
    """

    role: str
    content: tuple[str | Audio, ...]


def messages(parts: Sequence[Part], *, waiting: bool = False) -> list[Message]:
    """The messages of a trace.

    Args:
        parts: of the trace, whole turns of user and assistant in turn.
        waiting: whether the last turn is the user's, which is to be answered.

    Raises:
        ProtocolError: the parts are not such turns, or an answer was cut off.
    """
    chat: list[Message] = []
    asked: list[str | Audio] = []
    for part in parts:
        match part:
            case Text(text):
                asked.append(text)
            case Audio():
                asked.append(part)
            case Answer(text, closed=closed):
                if not closed:
                    raise ProtocolError(
                        f"turn {len(chat) // 2 + 1} of the trace is cut off, and a chat template would "
                        "close it; build the dialogue with its answer"
                    )
                chat += [_user(asked, first=not chat), Message("assistant", (text,))]
                asked = []
    if waiting and asked:
        return [*chat, _user(asked, first=not chat)]
    if asked or waiting or not chat:
        raise ProtocolError(
            f"the trace ends with {asked!r}, expected {'a question' if waiting else 'an answer'}"
        )
    return chat


def _user(asked: Sequence[str | Audio], *, first: bool) -> Message:
    """A user turn without its markup."""
    content: list[str | Audio] = []
    for part in asked:
        if isinstance(part, str) and content and isinstance(content[-1], str):
            content[-1] += part
        else:
            content.append(part)
    lead = MARKUP.user if first else "\n" + MARKUP.user
    for at, part in enumerate(content):
        if not isinstance(part, str):
            continue
        begins, ends = at == 0, at == len(content) - 1
        before = lead if begins else MARKUP.audio_close
        after = MARKUP.user_close if ends else MARKUP.audio_open
        if not (part.startswith(before) and part.endswith(after)):
            raise ProtocolError(f"not a user turn of audio and text: {part!r}")
        content[at] = part.removeprefix(before).removesuffix(after)
    bare = [part for part in content if part != ""]
    wrong = not isinstance(content[0], str) or not isinstance(content[-1], str)
    if wrong or any(isinstance(part, str) and "<|" in part for part in bare):
        raise ProtocolError(f"not a user turn of audio and text: {asked!r}")
    return Message("user", tuple(bare))


def trace_parts(chat: Sequence[Message]) -> tuple[Part, ...]:
    """Return the parts of a trace from its messages, as `messages` gives them, with a question at the end.

    Raises:
        ProtocolError: roles do not alternate from user to user, or a text holds markup.
    """
    parts: list[Part] = []
    for number, message in enumerate(chat):
        expected = "assistant" if number % 2 else "user"
        if message.role != expected:
            raise ProtocolError(
                f"message {number}: role {message.role!r}, expected {expected!r}: users and assistants in turn"
            )
        if any(isinstance(part, str) and "<|" in part for part in message.content):
            raise ProtocolError(f"message {number}: a text holds '<|', which begins markup")
        if message.role == "assistant":
            parts.append(Answer("".join(part for part in message.content if isinstance(part, str))))
            continue
        lead = MARKUP.user if number == 0 else "\n" + MARKUP.user
        for part in message.content:
            if isinstance(part, str):
                lead += part
            else:
                parts += [Text(lead + MARKUP.audio_open), part]
                lead = MARKUP.audio_close
        parts.append(Text(lead + MARKUP.user_close))
    if not len(chat) % 2:
        raise ProtocolError("the last message is no question: expected one of the user")
    return tuple(parts)
