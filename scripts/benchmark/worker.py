"""Process of a job: reads what to do from standard input, prints what came of it as one line of JSON."""

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from rich import get_console

from cxrnet.core.process import quick_imports


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do a job, unless a package that it needs isn't installed."""
    if missing := [name for name in request["needs"] if find_spec(name) is None]:
        return {"missing": f"{', '.join(missing)} not installed"}
    module, _, function = request["function"].partition(":")
    with quick_imports():  # as every command of cxrnet does
        contender = import_module(module)
    return {"numbers": getattr(contender, function)(**request["settings"])}


if __name__ == "__main__":
    get_console().quiet = True
    print("\n" + json.dumps(answer(json.load(sys.stdin))))
