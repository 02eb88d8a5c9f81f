"""SoulX-Transcriber behind a server of OpenAI's chat completions: lines of times, speaker and words.

Its README's sampling (temperature 0.2, repetition penalty 1.05) and pieces of at most five minutes. The
prompt says the task in our words; where its exact wording matters, serve the model with its own template.
"""

from .base import SystemOptions
from .chat import ChatModel


class SoulxTranscriber(ChatModel):
    """SoulX-Transcriber."""

    system_prompt = "You are an expert in speech recognition and speaker diarization."
    prompt = (
        "Task: speaker diarization and speech recognition.\n"
        "Write each turn as: [HH:MM:SS.mmm --> HH:MM:SS.mmm] Speaker N: text\n"
        "Keep the turns of each speaker whole; turns at the same time have lines of their own. Write the "
        "words without punctuation, and nothing but the lines."
    )
    sampling = {"temperature": 0.2, "top_p": 0.9, "repetition_penalty": 1.05, "seed": 42}  # noqa: RUF012


def load(options: SystemOptions) -> SoulxTranscriber:
    """See `table.load`."""
    options.refuse("soulx-transcriber", "language", "hotwords", "speakers")
    return SoulxTranscriber("soulx-transcriber", "Soul-AILab/SoulX-Transcriber", options)
