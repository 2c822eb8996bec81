"""Imports go down only, and never in a circle."""

import ast
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
    "reporting": 5,
    "workflows": 6,
}
"""By package or module. Packages of one level don't import each other."""
COMMAND = 7
"""The level of any other module at the root."""


def imports() -> dict[str, set[str]]:
    """By module, the modules of cxrnet that it imports, also within functions."""
    names = {".".join(path.relative_to(SOURCES.parent).with_suffix("").parts): path for path in SOURCES.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names if alias.name.startswith("cxrnet.")}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "cxrnet":
                of_names = {f"{node.module}.{alias.name}" for alias in node.names}
                found[name] |= (of_names & set(names)) or {str(node.module)}
    return found


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


IMPORTS = imports()


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
