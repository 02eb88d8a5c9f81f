"""The operations by which clients correct a transcript."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .failures import RequestError


class _Operation(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Rename(_Operation):
    """Give a speaker a name, everywhere."""

    op: Literal["rename"]
    speaker: str
    name: str = Field(min_length=1, max_length=100)


class Merge(_Operation):
    """Give all segments of one speaker to another: the two are one person."""

    op: Literal["merge"]
    source: str = Field(alias="from")
    into: str


class Move(_Operation):
    """Give a segment to another speaker, known or new."""

    op: Literal["move"]
    segment: str
    speaker: str = Field(min_length=1, max_length=100)


class Edit(_Operation):
    """Change words or times of a segment."""

    op: Literal["edit"]
    segment: str
    text: str | None = Field(None, max_length=10_000)
    start: float | None = Field(None, ge=0)
    end: float | None = Field(None, ge=0)


class Split(_Operation):
    """Cut a segment in two, before a character of its text."""

    op: Literal["split"]
    segment: str
    at: int = Field(ge=1, description="Characters of the text before the cut.")
    time: float | None = Field(
        None, ge=0, description="Seconds of the cut; else from the words' times, or estimated."
    )
    speaker: str | None = Field(
        None, min_length=1, max_length=100, description="Of the second part; else the same."
    )


class Join(_Operation):
    """Join two segments to one, with the speaker of the earlier."""

    op: Literal["join"]
    segment: str
    other: str


class Add(_Operation):
    """Add a segment where nothing was transcribed."""

    op: Literal["add"]
    speaker: str = Field(min_length=1, max_length=100)
    start: float = Field(ge=0)
    end: float = Field(ge=0)
    text: str = Field(max_length=10_000)


class Gender(_Operation):
    """Set the gender of a speaker, everywhere."""

    op: Literal["gender"]
    speaker: str
    gender: Literal["female", "male", "unknown"]


class Delete(_Operation):
    """Delete a segment that nobody said."""

    op: Literal["delete"]
    segment: str


class Undo(_Operation):
    """Undo the last operation."""

    op: Literal["undo"]


class Redo(_Operation):
    """Redo the operation that was undone last."""

    op: Literal["redo"]


class Listen(_Operation):
    """Transcribe a chunk again, with the corrections made so far."""

    op: Literal["listen"]
    chunk: int = Field(ge=0)
    keep: bool = Field(True, description="Whether lines that people corrected stay as they are.")


Operation = (
    Rename | Merge | Move | Edit | Split | Join | Add | Gender | Delete | Undo | Redo | Listen
)
_OPERATION: TypeAdapter[Operation] = TypeAdapter(Annotated[Operation, Field(discriminator="op")])


def parse_operation(data: Any) -> tuple[int, Operation]:
    """Check the body of a correction: `revision` and the operation's own keys.

    Raises:
        RequestError: 400, of the first key that is wrong.
    """
    if not isinstance(data, dict) or type(data.get("revision")) is not int:
        raise RequestError(
            400,
            "expected an object with the 'revision' it was made on, a whole number, and an 'op'",
            code="invalid_value",
            param="revision",
        )
    values = {key: value for key, value in data.items() if key != "revision"}
    try:
        return data["revision"], _OPERATION.validate_python(values, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = str(first["loc"][-1]) if first["loc"] else "op"
        raise RequestError(
            400, f"{param}: {first['msg']}", code="invalid_value", param=param
        ) from error
