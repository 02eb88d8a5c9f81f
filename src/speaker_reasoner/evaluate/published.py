"""Figures that others published, each with its unit, its source, and the date it was looked up.

    for group in groups("segmented"):
        group.source.what, group.unit, group.rows

`published.json` holds them. Figures of one group come from one source, of one unit, and may be
compared; those of different groups were measured in different ways.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True)
class Publication:
    """The source of published figures.

    Attributes:
        what: its title.
        url: its address; `None` for a note without one.
        collar: of the DER, on each side of a boundary; `not printed` if the source does not say.
        normalisation: of the words, in the same way.
        looked_up: the date, `YYYY-MM-DD`.
        third_party: whether somebody else reports the authors' figures, which were not checked.
    """

    what: str
    url: str | None
    collar: str
    normalisation: str
    looked_up: str
    third_party: bool

    def describe(self) -> str:
        """Return one sentence: the source, its collar and normalisation, and the date."""
        party = "; a third party's note, weaker evidence" if self.third_party else ""
        link = f" ({self.url})" if self.url and self.url not in self.what else ""
        return (
            f"{self.what}{link}, looked up on {self.looked_up}; collar: {self.collar}; text "
            f"normalisation: {self.normalisation}{party}"
        )


@dataclass(frozen=True, slots=True)
class Group:
    """Figures of one source and one unit.

    Attributes:
        source: where they come from.
        unit: the unit that the systems took at once, in words.
        rows: percent, by system, data set and metric.
    """

    source: Publication
    unit: str
    rows: Mapping[str, Mapping[str, Mapping[str, float]]]


@cache
def _stored() -> Mapping[str, Any]:
    text = resources.files(__package__).joinpath("published.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def groups(table: str) -> list[Group]:
    """Return the published figures of a table of `tables.TABLES`."""
    stored = _stored()
    return [
        Group(Publication(**stored["sources"][one["source"]]), one["unit"], one["rows"])
        for one in stored["tables"][table]
    ]


def of_data(data: str) -> list[Group]:
    """Return the published figures of one data set, whose name is matched ignoring case."""
    chosen = []
    for table in _stored()["tables"]:
        for group in groups(table):
            rows = {
                system: {
                    name: of for name, of in by_set.items() if name.casefold() == data.casefold()
                }
                for system, by_set in group.rows.items()
            }
            rows = {system: of for system, of in rows.items() if of}
            if rows:
                chosen.append(Group(group.source, group.unit, rows))
    return chosen


def only_published(system: str) -> str | None:
    """Say why a system cannot be run here, so that it has published figures alone; `None` if it can."""
    reasons: Mapping[str, str] = _stored()["only_published"]
    for name, reason in reasons.items():
        if system.casefold().startswith(name.casefold()):
            return reason
    return None
