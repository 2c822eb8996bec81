"""``from cxrnet import ...``: the names that a notebook needs, each imported when it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cxrnet


@pytest.mark.parametrize("name", cxrnet.__all__)
def test_every_name_is_there_and_listed(name):
    assert getattr(cxrnet, name) is not None
    assert name in dir(cxrnet)


def test_a_type_checker_sees_the_same_names():
    tree = ast.parse(Path(cxrnet.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname: node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert {name: seen[name] for name in cxrnet.__all__ if name != "__version__"} == cxrnet._MODULES


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Netwrk'"):
        cxrnet.Netwrk  # noqa: B018


def test_torch_waits_until_a_name_needs_it():
    code = (
        "import sys, cxrnet; from cxrnet import CxrnetError, NetworkConfig, Phase, Schedule; dir(cxrnet)\n"
        "assert 'torch' not in sys.modules; from cxrnet import Network; assert 'torch' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
