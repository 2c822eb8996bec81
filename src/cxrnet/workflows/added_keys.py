"""Keys that a command line adds with a ``+``: those that nothing reads are refused, or said where they may be of use.

Hydra takes any. What there is to add to is told by ``conf/``: a data set's ``manifest`` and ``known_issues``, the
``trainer`` and the ``optimizer`` hand on what they get, so theirs are left to who gets it.
"""

import logging
from collections.abc import Collection, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cxrnet.cli.hydra_errors import alike
from cxrnet.core.config import Config
from cxrnet.errors import CxrnetError
from cxrnet.training.schedule import Phase, Schedule

logger = logging.getLogger("cxrnet")


def check_added_keys(config: Config, configs: Path, config_name: str) -> None:
    """See that everything in a configuration is read.

    Args:
        config: plain.
        configs: the folder that it was composed of.
        config_name: the config that stands at its top.

    Raises:
        CxrnetError: the groups evaluation, tracking, model or schedule, a phase, or a part of the config at the top
            hold a key that nothing reads. Of one at the top it is only said: other values may name it, as ``${mine}``.
    """
    names = set(_dotted(config))
    for group, option in (("evaluation", "standard"), ("tracking", "mlflow")):
        if group in config:
            _refuse(config[group], _read(configs / group / f"{option}.yaml"), group, names)
    if "model" in config:
        _refuse(config["model"], {"backbone": None, **_read(configs / "model" / "_base.yaml")}, "model", names)
    if "schedule" in config:
        _check_schedule(config["schedule"], names)
    top = _read(configs / f"{config_name}.yaml")
    for name, known in top.items():
        if isinstance(known, dict) and isinstance(config.get(name), dict):
            _refuse(config[name], known, name, names)
    known = {*top, *(group for each in top["defaults"] if isinstance(each, dict) for group in each)}
    for name in sorted(config.keys() - known):
        hint = "".join(f"; did you mean {other}?" for other in alike(name, names - set(_dotted({name: config[name]}))))
        logger.warning("%s: nothing reads this key but values that name it, as ${%s}%s", name, name, hint)


def _check_schedule(schedule: Config, names: Collection[str]) -> None:
    known = dict.fromkeys(field.name for field in fields(Schedule))
    _refuse(schedule, known, "schedule", names)
    of_phase = dict.fromkeys(field.name for field in fields(Phase))
    phases = schedule.get("phases")
    for phase in [*(phases if isinstance(phases, list) else []), schedule.get("scratch")]:
        if isinstance(phase, dict):
            _refuse(phase, of_phase, f"schedule: phase '{phase.get('name')}'", ())


def _refuse(given: Config, known: Config, where: str, names: Collection[str]) -> None:
    """Refuse what is given and not known, at any depth of what is known."""
    for name, value in given.items():
        key = f"{where}.{name}"
        if name not in known and not str(name).startswith("_"):
            others = alike(key, {other for other in names if not (_within(other, key) or _within(key, other))})
            hint = f"did you mean {' or '.join(others)}?" if others else "leave it out"
            raise CxrnetError(f"{key}: no such key; {hint}")
        if isinstance(value, dict) and isinstance(known.get(name), dict):
            _refuse(value, known[name], key, names)


def _within(key: str, node: str) -> bool:
    return f"{key}.".startswith(f"{node}.")


def _read(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(file))  # type: ignore[assignment]
    return values


def _dotted(value: Config, above: str = "") -> Iterator[str]:
    """All keys of a configuration, groups too."""
    for name, inner in value.items():
        key = f"{above}{name}"
        yield key
        if isinstance(inner, dict):
            yield from _dotted(inner, f"{key}.")
