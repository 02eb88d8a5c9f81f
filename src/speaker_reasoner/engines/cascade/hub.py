"""Error messages for models that cannot be loaded: on one line, with the reason and a remedy."""

import contextlib
import io
import re
from collections.abc import Iterator

from ...errors import CheckpointError

_PAGE = re.compile(r"(?:huggingface\.co|hf\.co)/(?:api/models/)?([\w.-]+/[\w.-]+)")
_NETWORK = "is there a network? A folder with the model does without, and so does what was downloaded before"


def unusable(part: str, model: str, error: BaseException, *, local: bool) -> CheckpointError:
    """The error of a model that cannot be loaded.

    Args:
        part: role and name of the model.
        model: as the user gave it.
        error: of the hub, the network or the file.
        local: whether the model is a folder.
    """
    lines = (str(error).strip() or type(error).__name__).split("\n")
    reason = " ".join(" ".join(lines[: 1 + lines[0].endswith(":")]).split())
    return CheckpointError(f"{part}: cannot be loaded: {reason}; {_remedy(model, error, local)}")


def _remedy(model: str, error: BaseException, local: bool) -> str:
    names = {kind.__name__ for one in _chain(error) for kind in type(one).__mro__}
    text = " ".join(str(one) for one in _chain(error))
    if "GatedRepoError" in names or "401" in text or "403" in text:
        page_link = _PAGE.search(text)
        page = page_link.group(1) if page_link else model
        return (
            f"its authors want their conditions accepted: do so on https://huggingface.co/{page}, and "
            "set HF_TOKEN to a token of yours (https://huggingface.co/settings/tokens)"
        )
    if local:
        return "is the folder whole, and of the kind that is expected?"
    if "RepositoryNotFoundError" in names or "ModelNotSupportedError" in names:
        return "there is no model of that name: give a hub id (OWNER/NAME) or a folder"
    return _NETWORK


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Drop what libraries print to standard output, which is for transcripts."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
