"""Imports go down only, and never in a circle."""

import ast
from collections.abc import Collection
from importlib.util import resolve_name
from pathlib import Path

import pytest

import cxrnet

SOURCES = Path(cxrnet.__file__).parent
LEVELS = {
    "errors": 0,
    "core": 1,
    "cli": 2,
    "data": 3,
    "models": 3,
    "evaluation": 3,
    "inference": 4,
    "training": 5,
    "tracking": 5,
    "reporting": 6,
    "serving": 7,
    "workflows": 8,
}
"""By package or module. Packages of one level don't import each other."""
COMMAND = 9
"""The level of any other module at the root."""


def imported_by(name: str, text: str, names: Collection[str]) -> set[str]:
    """The modules of cxrnet that a module imports, also within functions; ``from . import b`` too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} - {"cxrnet"}  # which alone imports nothing more
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), name.rpartition(".")[0])
            found |= {f"{source}.{alias.name}" for alias in node.names} & set(names) or {source}
    return {each for each in found if each.partition(".")[0] == "cxrnet"}


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


PATHS = {".".join(path.relative_to(SOURCES.parent).with_suffix("").parts): path for path in SOURCES.rglob("*.py")}
IMPORTS = {name: imported_by(name, path.read_text(encoding="utf-8"), PATHS.keys()) for name, path in PATHS.items()}


@pytest.mark.parametrize(
    ("line", "imported"),
    [
        ("import cxrnet.cli.app, os", {"cxrnet.cli.app"}),
        ("from cxrnet.data import splits, Name", {"cxrnet.data.splits"}),
        ("from cxrnet.data.splits import FRACTIONS", {"cxrnet.data.splits"}),
        ("def f():\n    from ..cli import app", {"cxrnet.cli.app"}),
        ("from . import splits", {"cxrnet.data.splits"}),
        ("from .splits import FRACTIONS", {"cxrnet.data.splits"}),
        ("from .. import errors", {"cxrnet.errors"}),
        ("from os import path", set()),
    ],
)
def test_imports_are_seen_however_they_are_written(line, imported):
    names = ("cxrnet.cli.app", "cxrnet.data.splits", "cxrnet.errors")
    assert imported_by("cxrnet.data.manifest", line, names) == imported


def test_each_package_has_a_level():
    folders = {path.parent.name for path in SOURCES.glob("*/__init__.py")}
    assert folders <= set(LEVELS) <= {package(module) for module in IMPORTS}


@pytest.mark.parametrize("name", sorted(LEVELS))
def test_a_package_imports_what_stands_below_it(name):
    up = [
        f"{module} -> {imported}"
        for module, those in IMPORTS.items()
        for imported in those
        if package(module) == name != package(imported) and LEVELS.get(package(imported), COMMAND) >= LEVELS[name]
    ]
    assert not up


def test_no_circle():
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for imported in sorted(IMPORTS.get(module, ())):
                visit(imported, (*way, module))
            done.add(module)

    for module in IMPORTS:
        visit(module, ())
