"""Which data sets a command is to read, besides the one that ``data`` names: options of ``conf/data`` by name."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cxrnet.configuration import Config, own_mappings, plain_config
from cxrnet.errors import CxrnetError

COUNTED = ("root", "manifest", "on_error", "known_faults")  # of a data option; the rest is of training


def configured_sets(config: DictConfig, option: str | None, overrides: Sequence[str]) -> dict[str, Config]:
    """Compose the data options that are asked for.

    Args:
        config: as composed from ``conf/evaluate.yaml``.
        option: the name of the option ``data``, if one is given.
        overrides: the command line.

    Returns:
        By name of the data set its option, plain; that of ``data`` is called as its option.

    Raises:
        CxrnetError: there is none, an option or a key doesn't exist or means nothing here, or a name stands twice.
    """
    external, changes = _named(config.external), _plain(config.sets)
    options = {option: option, **external} if option else external
    if not options:
        raise CxrnetError("data: nothing to evaluate on; give data=<option> or +external=[<option>, ...]")
    if option in external:
        raise CxrnetError(f"external: '{option}' is the data set of data too; give one of them another name, {{a: b}}")
    _check_names(changes, external, "sets")
    _check_names(_plain(config.classes), options, "classes")
    own = {text.lstrip("+~").split("=")[0].split(".")[1] for text in overrides if text.lstrip("+~").startswith("data.")}
    _check_keys(own, "data")
    sets = {option: _plain(config.data)} if option else {}
    return sets | {name: _composed(name, external[name], changes.get(name) or {}, config.seed) for name in external}


def _named(external: Any) -> dict[str, str]:  # noqa: ANN401 (whatever a user typed)
    """Option by name."""
    if external is None:
        return {}
    value: Any = OmegaConf.to_container(external) if OmegaConf.is_config(external) else external
    if isinstance(value, list) and len(set(map(str, value))) == len(value):
        value = {option: option for option in value}
    if not isinstance(value, dict) or not all(isinstance(option, str) for option in value.values()):
        raise CxrnetError(
            f"external: {value} won't do; give options of data, as [a, b], or names for them, as {{n: a}}"
        )
    if bad := [name for name in value if not re.fullmatch(r"\w[\w-]*", str(name))]:
        raise CxrnetError(f"external: '{bad[0]}' is no name for a folder; use letters, digits, _ and -")
    return {str(name): option for name, option in value.items()}


def _plain(config: DictConfig | None) -> Config:
    if config is None:
        return {}
    return plain_config(config)


def _check_names(given: Config, names: Mapping[str, object], where: str) -> None:
    if unknown := [name for name in given if name not in names]:
        known = ", ".join(names) or "none"
        raise CxrnetError(f"{where}.{unknown[0]}: there is no such data set; those that {where} is for: {known}")
    for name, value in given.items():
        if value is not None and not isinstance(value, dict):
            raise CxrnetError(f"{where}.{name}: {value} won't do; give {{key: value}}")


def _check_keys(keys: Iterable[str], where: str) -> None:
    if unknown := sorted(set(keys) - set(COUNTED)):
        raise CxrnetError(f"{where}.{unknown[0]}: means nothing here; of a data option only {', '.join(COUNTED)} count")


def _composed(name: str, option: str, changes: Config, seed: int) -> Config:
    loader = GlobalHydra.instance().config_loader()
    options = [each for each in loader.get_group_options("data") if not each.startswith("_")]
    if option not in options:
        raise CxrnetError(f"external: '{option}' is no option of data; there are {', '.join(options)}")
    _check_keys(changes, f"sets.{name}")
    whole = compose("evaluate", [f"data={option}", f"seed={seed}"])
    try:
        for key in own_mappings(changes):  # which are replaced, not merged into
            OmegaConf.update(whole.data, key, None)
        whole.data = OmegaConf.merge(whole.data, changes)
        return _plain(whole.data)
    except OmegaConfBaseException as error:
        key = str(error.full_key or "").removeprefix("data.")
        reason = str(error).splitlines()[0]
        raise CxrnetError(f"sets.{name}.{key}: {reason}; give sets.{name}.<key>=<value>") from error
