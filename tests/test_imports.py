"""Imports go strictly downward between the rooms."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ncjax"
MAY_IMPORT = {
    "theory": {"theory", "errors"},
    "models": {"models", "errors"},
    "data": {"data", "errors"},
    "store": {"store", "errors"},
    "training": {"training", "theory", "models", "data", "store", "config", "errors"},
    "analysis": {"analysis", "training", "theory", "models", "data", "store", "config", "errors"},
}


def imported_rooms(path: Path) -> set[str]:
    """The first part below ncjax of every import in a file, at any depth of nesting."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("ncjax.")}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_room_imports_only_what_is_below(room):
    files = list((PACKAGE / room).glob("*.py"))
    assert files
    for path in files:
        assert imported_rooms(path) <= MAY_IMPORT[room], path


def test_every_room_is_listed():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == MAY_IMPORT.keys()


def test_the_check_sees_an_upward_import(tmp_path):
    upward = tmp_path / "upward.py"
    upward.write_text("def f():\n    from ncjax.training import step\n")
    assert imported_rooms(upward) == {"training"}
