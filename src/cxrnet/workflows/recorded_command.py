"""What of a recorded command line is taken from ``run.json``: the file may be a stranger's, and must run no code.

The options of a run and its values are. What reaches into Hydra (its callbacks are made before a command begins), loads
a config from elsewhere or reads the environment is not. A ``_target_`` is called: it must be one that ``conf/`` names
itself, or a class that the libraries list for being configured. Hydra's own target policy, which knows dangerous names,
stands behind that.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from cxrnet.core.config import Config
from cxrnet.errors import CxrnetError
from cxrnet.workflows.settings import Train

# One name behind these, with a capital letter: a longer path could lead into any module that these have imported.
CLASSES = re.compile(
    r"(torch\.optim|torch\.nn|torchvision\.transforms(\.v2)?|timm\.optim|lightning\.pytorch(\.(callbacks|loggers|profilers))?)"
    r"\.[A-Z]\w*"
)
# Everything else between ${ and } may call a resolver, as ${oc.env:HOME} or ${${key}:HOME} do.
PLAIN = re.compile(r"\$\{[\w.]+\}")


def check_recorded(words: Sequence[object], configs: Path) -> None:
    """See that words which a file holds can be given to Hydra.

    Args:
        words: of the recorded command line, but for those that are given anew.
        configs: the folder that the configuration is composed of.

    Raises:
        CxrnetError: one can't; the person who knows it to be harmless types it again.
    """
    for word in words:
        if (reason := _reason(word, configs)) is not None:
            raise CxrnetError(
                f"resume: run.json holds {word!r}, which {reason}; if you trust it, type it behind resume=<folder>"
            )


def _reason(word: object, configs: Path) -> str | None:
    """Why a word isn't taken from a file."""
    override = _parsed(word)
    if override is None:
        return "is no key=value"
    key, value = override.key_or_group, override.value() if not override.is_sweep_override() else None
    if override.is_sweep_override():
        return "gives several values"
    if re.split(r"[/.]", key)[0] == "hydra" or override.package is not None:
        return "changes Hydra or where a config stands"
    if "${" in PLAIN.sub("", str(word)):
        return "asks for something outside the configuration"
    if "." not in key and key not in _values(configs) and any(re.search(r"[/\\$]", text) for text in _texts(value)):
        return "names a file where the name of an option stands"
    called = [each for each in _targets({key.rpartition(".")[2]: value}) if not _is_known(each, configs)]
    return f"calls {called[0]}, not a part of cxrnet, torch, torchvision, Lightning or timm" if called else None


def _parsed(word: object) -> Override | None:
    if not isinstance(word, str) or word.startswith("-"):
        return None
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def _texts(value: object) -> Iterator[str]:
    for each in value if isinstance(value, list) else [value]:
        yield str(each)


def _targets(value: object) -> Iterator[object]:
    """What stands behind ``_target_``, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "_target_":
                yield inner
            else:
                yield from _targets(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _targets(inner)


def _is_known(target: object, configs: Path) -> bool:
    return isinstance(target, str) and (CLASSES.fullmatch(target) is not None or target in _own_targets(configs))


@cache
def _own_targets(configs: Path) -> frozenset[object]:
    """The targets that the configs name, but for those of Hydra's own part."""
    return frozenset(target for file in configs.rglob("*.yaml") for target in _targets(_without_hydra(file)))


@cache
def _values(configs: Path) -> frozenset[str]:
    """The keys at the top of the training's configuration that are no groups of options."""
    return frozenset(each.name for each in fields(Train) if not (configs / each.name).is_dir())


def _without_hydra(file: Path) -> Config:
    values: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(file))  # type: ignore[assignment]
    return {key: value for key, value in values.items() if key != "hydra"}
