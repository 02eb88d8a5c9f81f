"""Models behind a server with OpenAI's chat completions, as vLLM and SGLang have: sound and a prompt in, text out."""

import base64
from typing import Any

from ..engines.client import Address, Client, Refused
from ..errors import AnswerError, SettingsError
from ..transcript import Transcript
from ..version import __version__
from .base import MOST_TOKENS, Answer, Sound, SystemOptions, Usage, is_swapped, text_hash
from .service import http_error
from .text import read_text

_KINDS = {"length": "truncated", "content_filter": "refused"}
"""Finish reasons that make an answer none."""


class ChatModel:
    """A model that is asked with a prompt.

    Attributes:
        system_prompt: the first message; none if empty.
        prompt: sent beside the sound.
        sampling: of each request.

    Args:
        name: of the system.
        model: its name on the server, where the options name none.
        options: `base_url` is the address of the server.

    Raises:
        SettingsError: there is no address, or an option has no use.
    """

    system_prompt = ""
    prompt = ""
    sampling: dict[str, Any] = {"temperature": 0.0}  # noqa: RUF012 - never changed

    def __init__(self, name: str, model: str, options: SystemOptions) -> None:
        if options.base_url is None:
            raise SettingsError(
                f"--system {name}: needs a server that serves {options.model or model}; name it by "
                "--base-url, as http://localhost:8000/v1"
            )
        options.refuse(name, "device")
        self.name = name
        self.model = options.model or model
        self.options = options
        self._client = Client(Address(options.base_url, options.key, options.timeout_s, retries=0))

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        return {
            "model": self.model,
            "prompt_sha256": text_hash(self.system_prompt + self.prompt),
            "sampling": self.sampling,
            "max_tokens": MOST_TOKENS,
            "sdk": {"name": "speaker-reasoner", "version": __version__},
        }

    def prompt_for(self, sound: Sound) -> str:
        """Return the prompt for one sound."""
        return self.prompt

    def ask(self, sound: Sound) -> Answer:
        """See `System`."""
        prompt = self.prompt_for(sound)
        data = base64.b64encode(sound.encoded("WAV")).decode()
        audio = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
        text = {"type": "text", "text": prompt}
        content = [audio, text]
        messages = [{"role": "user", "content": content}]
        if self.system_prompt:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        body = {
            "model": self.model,
            "messages": messages,
            "max_tokens": MOST_TOKENS,
            **self.sampling,
        }
        try:
            raw = self._client.run(self._client.post("/chat/completions", body))
        except Refused as error:
            raise http_error(self.name, error.status, error) from error
        return self.answer_of(raw, prompt)

    def answer_of(self, raw: dict[str, Any], prompt: str) -> Answer:
        """The answer that a server's JSON is.

        Raises:
            AnswerError: `swapped-model`.
        """
        answered = raw.get("model") if isinstance(raw.get("model"), str) else None
        if is_swapped(self.model, answered):
            raise AnswerError("swapped-model", f"asked for {self.model}, {answered} answered", raw)
        used = raw.get("usage")
        used = used if isinstance(used, dict) else {}
        usage = Usage(
            input_tokens=used.get("prompt_tokens"), output_tokens=used.get("completion_tokens")
        )
        return Answer(raw, answered, self.system_prompt + prompt, usage)

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        return self.parse(content_of(answer.raw), sound)

    def parse(self, text: str, sound: Sound) -> Transcript:
        """The transcript that the model's text is."""
        return read_text(text, sound)

    def close(self) -> None:
        """See `System`."""
        self._client.close()


def content_of(raw: Any) -> str:
    """The text of a chat completion.

    Raises:
        AnswerError: `truncated`, `refused`, `empty` or `format`: there is none, or it is not whole.
    """
    choices = raw.get("choices") if isinstance(raw, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict):
        raise AnswerError("format", "expected a chat completion with a choice")
    message = first.get("message")
    if not isinstance(message, dict):
        raise AnswerError("format", f"expected a message, got {str(message)[:60]!r}")
    if message.get("refusal"):
        raise AnswerError("refused", str(message["refusal"])[:200])
    reason = first.get("finish_reason")
    if isinstance(reason, str) and reason in _KINDS:
        raise AnswerError(_KINDS[reason], f"the answer ended for the reason {reason!r}")
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(text for text in texts if isinstance(text, str))
    if not isinstance(content, str) or not content.strip():
        raise AnswerError("empty", "the answer has no text")
    return content
