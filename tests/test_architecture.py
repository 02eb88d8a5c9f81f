"""Imports point one way: the rooms of the package, as docs/architecture.md draws them."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import speaker_reasoner

PACKAGE = Path(speaker_reasoner.__file__).parent

FLOORS = (
    {"version", "errors", "heap", "cores"},
    {"extras", "transcript", "decoding", "locks"},
    {"spans", "audio"},
    {"formats", "protocol", "speech"},
    {"voices"},
    {"engines"},
    {"reasoner", "__init__"},
    {"longform"},
    {"systems", "bulk", "data"},
    {"evaluate", "server"},
    {"train"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
"""Rooms from the ground up. A room imports from floors below its own, and from itself."""

LAZY = {("__init__", "longform")}
"""The package's own functions load what they need when they are called."""

HEIGHTS = {room: height for height, floor in enumerate(FLOORS) for room in floor}


def room_of(parts: list[str]) -> str:
    return parts[0] if parts else "__init__"


def modules() -> Iterator[tuple[list[str], ast.Module, bool]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[0] in ("configs", "checkpoints"):
            continue  # data that is copied to others
        is_package = parts[-1] == "__init__"
        yield parts[:-1] if is_package else parts, ast.parse(path.read_text("utf-8")), is_package


def imports(parts: list[str], tree: ast.Module, is_package: bool) -> Iterator[list[str]]:
    """Modules of this package that one imports, wherever in it, as parts of their names."""
    here = parts if is_package else parts[:-1]
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = here[: len(here) - node.level + 1]
        if node.module:
            yield [*base, *node.module.split(".")]
        else:
            for alias in node.names:
                inside = PACKAGE.joinpath(*base, alias.name)
                is_module = inside.is_dir() or inside.with_suffix(".py").exists()
                yield [*base, alias.name] if is_module else base


def test_rooms_import_from_below() -> None:
    wrong = []
    for parts, tree, is_package in modules():
        room = room_of(parts)
        for target in imports(parts, tree, is_package):
            other = room_of(target)
            if room != other and (room, other) not in LAZY and HEIGHTS[other] >= HEIGHTS[room]:
                wrong.append(f"{'.'.join(parts) or '__init__'} imports {'.'.join(target)}")
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph: dict[str, set[str]] = {}
    for parts, tree, is_package in modules():
        name = ".".join(parts) or "__init__"
        imported = {".".join(target) or "__init__" for target in imports(parts, tree, is_package)}
        graph[name] = imported - {name}
    known: dict[str, bool] = {}
    circle: list[str] = []

    def visit(name: str, path: list[str]) -> None:
        if circle or known.get(name):
            return
        if name in path:
            circle.extend([*path[path.index(name) :], name])
            return
        for other in sorted(graph.get(name, ())):
            if (room_of(name.split(".")), room_of(other.split("."))) not in LAZY:
                visit(other, [*path, name])
        known[name] = True

    for name in graph:
        visit(name, [])
    assert circle == []


def test_every_room_is_in_the_picture() -> None:
    text = (PACKAGE.parent.parent / "docs" / "architecture.md").read_text("utf-8")
    rooms = {room_of(parts) for parts, _, _ in modules()} - {"__init__", "__main__", "version"}
    assert rooms <= set(HEIGHTS)
    assert sorted(room for room in rooms if f"`{room}" not in text) == []


@pytest.mark.no_cover
def test_a_test_without_coverage_is_not_traced() -> None:
    """Also in a process beside others, see `conftest.pytest_sessionstart`."""
    assert not type(sys.gettrace()).__module__.startswith("coverage")
