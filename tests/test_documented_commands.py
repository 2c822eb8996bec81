"""Every command of cxrnet that README and docs name composes, and its keys exist; nothing is run."""

import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException

from cxrnet.cli.app import config_folder
from cxrnet.cli.command_line import check_keys, typed_words
from cxrnet.core.config import plain_config
from cxrnet.core.schema import build
from cxrnet.errors import CxrnetError
from cxrnet.workflows.settings import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[1]
SETTINGS = {command.__name__.lower(): command for command in COMMANDS}
# A line of a block, fenced or indented, or a span between backticks; also what torchrun and srun start.
COMMAND = re.compile(
    r"(?:^ *|`)(?:python|torchrun [^`\n]*?|srun [^`\n]*?python) -m cxrnet\.(\w+)([^`\n]*)", re.MULTILINE
)
PLACEHOLDERS = {"<option>": "phantom", "<precision>": "32-true", "<seed>": "1"}


def commands_of(text: str) -> list[tuple[str, str]]:
    """The name of each command and what is typed behind it, placeholders filled in."""
    filled = re.sub("<[^<>\n]*>", lambda found: PLACEHOLDERS.get(found[0], "x"), text)
    return [(name, shlex.join(shlex.split(line, comments=True))) for name, line in COMMAND.findall(filled)]


PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "data" / "README.md")
DOCUMENTED = sorted({each for page in PAGES for each in commands_of(page.read_text(encoding="utf-8"))})


def values_of(override: Override) -> list[str]:
    """The values of a sweep; the ends of an interval."""
    if override.is_interval_sweep():
        return [str(override.value().start), str(override.value().end)]
    return [*override.sweep_string_iterator()]


def check(name: str, line: str) -> None:
    """Compose what is typed, every value of a sweep once, and check it as the command would."""
    words = [word for word in shlex.split(line) if not word.startswith("--") and word != "..."]
    sweep = "-m" in words
    words = typed_words([word for word in words if word != "-m"])
    # What the command makes of its words before Hydra gets them; that of `resume=` reads the folder of a run.
    arguments = inspect.getclosurevars(importlib.import_module(f"cxrnet.{name}").main).nonlocals["arguments"]
    if arguments is not None and not any(word.startswith("resume=") for word in words):
        words = arguments(words)
    parsed = [OverridesParser.create().parse_override(word) for word in words]
    choices = [
        [f"{each.get_key_element()}={value}" for value in values_of(each)]
        if sweep and each.is_sweep_override()
        else [word]
        for each, word in zip(parsed, words, strict=True)
    ]
    for job in range(max(map(len, choices), default=1)):
        typed = [given[min(job, len(given) - 1)] for given in choices]
        config = compose(name, typed)
        check_keys(config)
        build(SETTINGS[name], plain_config(config))


@pytest.fixture(scope="module", autouse=True)
def _configs():
    with initialize_config_dir(str(config_folder()), version_base="1.3"):  # once: it keeps the files that it has read
        yield


@pytest.mark.parametrize(("name", "line"), DOCUMENTED)
def test_a_documented_command_composes(name, line):
    check(name, line)


def test_commands_are_found_wherever_they_stand():
    text = "```\npython -m cxrnet.train a=1  # why\n```\n\n    python -m cxrnet.sync <a>\n\n`python -m cxrnet.sign b=2`"
    assert commands_of(text) == [("train", "a=1"), ("sync", "x"), ("sign", "b=2")]
    text = "torchrun --nproc-per-node 2 -m cxrnet.train a=1\nsrun --kill-on-bad-exit python -m cxrnet.train b=2"
    assert commands_of(text) == [("train", "a=1"), ("train", "b=2")]
    assert {name for name, _ in DOCUMENTED} == set(SETTINGS)


@pytest.mark.parametrize(
    "line", ["data.batchsize=3", "+data.batchsize=3", "model=resnet51", "data.limit=few", "-m model=resnet50,resnet51"]
)
def test_a_wrong_key_option_or_value_is_found(line):
    with pytest.raises((CxrnetError, ConfigCompositionException)):
        check("train", line)
