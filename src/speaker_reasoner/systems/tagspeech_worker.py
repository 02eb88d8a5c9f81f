"""Runs in the Python that has Auden's libraries, in the folder `examples/tagspeech`: one line of JSON per sound.

    python tagspeech_worker.py AudenAI/TagSpeech-Alimeeting auto

Lines in: `{"audio": PATH}`. Lines out: `{"version": ...}` once it is ready, then `{"text": MARKUP}`, or
`{"error": MESSAGE}`. Nothing of this package is imported.
"""

import json
import os
import sys


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def say(**what: object) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    sys.path.insert(0, "")  # the folder it runs in
    try:
        import torch  # type: ignore[import-not-found,unused-ignore]
        from model import TagSpeech  # type: ignore[import-not-found,unused-ignore]

        device = sys.argv[2]
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model = TagSpeech.from_pretrained(sys.argv[1]).to(device)
        token = model.config.audio_token
    except Exception as error:  # whatever it is, it is told to the other side
        say(error=f"{type(error).__name__}: {error}")
        return
    say(version=str(torch.__version__))
    content = f"<text>{token}</text>\n<speaker>{token}</speaker>"
    for line in sys.stdin:
        try:
            messages = [[{"role": "user", "content": content}]]
            made = model.generate(
                [json.loads(line)["audio"]],
                messages,
                max_new_tokens=800,
                num_beams=1,
                do_sample=False,
            )
            say(text=made[0])
        except Exception as error:
            say(error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
