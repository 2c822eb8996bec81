"""Count what the code is made of: ``python scripts/counts.py [folder of a checkout]``.

Prints files at the root of the package, modules, lines of sources and tests, lengths of functions and public names.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

Function = ast.FunctionDef | ast.AsyncFunctionDef


def main(top: Path) -> int:
    """Print the counts of a checkout; the exit status."""
    package = top / "src" / "cxrnet"
    if not package.is_dir():
        print(f"error: '{package}' is not there; name the folder of a checkout", file=sys.stderr)
        return 2
    trees = [ast.parse(file.read_text("utf-8")) for file in package.rglob("*.py")]
    lengths = [node.end_lineno - node.lineno + 1 for tree in trees for node in functions(tree) if node.end_lineno]
    counts = {
        "files at the root": sum(1 for file in package.iterdir() if file.is_file()),
        "modules": len(trees),
        "lines of src": lines(package),
        "lines of tests": lines(top / "tests"),
        "lines of scripts": lines(top / "scripts"),
        "functions": len(lengths),
        "median lines of a function": f"{median(lengths):.0f}",
        "90th percentile of it": f"{quantiles(lengths, n=10)[-1]:.0f}",
        "functions of more than 50 lines": sum(length > 50 for length in lengths),
        "public names": sum(1 for tree in trees for _ in public(tree)),
    }
    for name, count in counts.items():
        print(f"{name:<32}{count:>8}")
    return 0


def lines(folder: Path) -> int:
    """Count the lines of the Python files below a folder."""
    return sum(len(file.read_text("utf-8").splitlines()) for file in folder.rglob("*.py"))


def functions(tree: ast.Module) -> Iterator[Function]:
    """Find the functions and methods of a module."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def public(tree: ast.Module) -> Iterator[str]:
    """Find the classes, functions and constants of a module whose names begin with no underscore."""
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names = [name]
            case ast.Assign(targets=targets):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                names = [name]
            case _:
                names = []
        yield from (name for name in names if not name.startswith("_"))


if __name__ == "__main__":
    if {"--help", "-h"} & set(sys.argv):
        print(__doc__)
        sys.exit()
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1])))
