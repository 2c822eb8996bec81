"""A composed configuration as plain data, and as a file in a run's folder.

``config.yaml`` is what the run began with; each time it is resumed, ``config.resumed-1.yaml`` and so on join it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cxrnet.core.atomic import write_text
from cxrnet.errors import CxrnetError

Config = dict[str, Any]

# Mappings whose keys are names of the user's, such as classes, and not settings of cxrnet's: each is one whole.
OWN_NAMES = frozenset(
    {
        *("fractions", "labels", "folders", "findings", "parts", "known_issues"),
        *("operating_points", "class_weights", "costs", "prior", "classes"),
    }
)
WHOLE = frozenset({"lr_schedule", "trainable"})
"""Mappings of settings that are one whole too: another kind has other keys."""
CLASS_NAMES = frozenset({"labels", "classes"})  # whose values are names of classes too


def plain_config(config: DictConfig) -> Config:
    """Return dictionaries, lists and values, interpolations resolved; names of classes are text, ``0`` too.

    Raises:
        CxrnetError: the name of a class is a truth value or null.
        omegaconf.errors.OmegaConfBaseException: a mandatory value is missing, or an interpolation leads nowhere.
    """
    plain: Config = OmegaConf.to_container(  # type: ignore[assignment]
        config, resolve=True, throw_on_missing=True, enum_to_str=True
    )
    return {key: _named(value, str(key), str(key)) for key, value in plain.items()}


def _named(value: Any, key: str, last: str, own: bool = False, classes: bool = False) -> Any:  # noqa: ANN401
    """Return what stands at a key whose last part is given, in a mapping of OWN_NAMES or CLASS_NAMES; names as text."""
    own = own or (last in OWN_NAMES and last != "prior")  # whose keys are looked up among the classes of a bundle
    classes = classes or last in CLASS_NAMES
    if isinstance(value, dict):
        names = {_name(part, key) if own else part: inner for part, inner in value.items()}
        return {part: _named(inner, f"{key}.{part}", str(part), own, classes) for part, inner in names.items()}
    if isinstance(value, list):
        return [
            _name(part, key) if classes and not isinstance(part, dict | list) else _named(part, key, "", own)
            for part in value
        ]
    return _name(value, key) if classes and value is not None else value


def _name(value: Any, key: str) -> str:  # noqa: ANN401
    if value is None or isinstance(value, bool):
        word = "null" if value is None else str(value).lower()
        raise CxrnetError(
            f"{key}: {word} is read as {'nothing' if value is None else 'a truth value'}, not as a name; quote it, "
            f"in a list as [\"'{word}'\", ...], as the key of a mapping in a YAML file (Hydra can't quote it)"
        )
    return str(value)


def own_mappings(config: Config, key: str = "") -> Iterator[str]:
    """List the dotted keys of the mappings of a configuration that are one whole, the outermost."""
    for part, value in config.items():
        if isinstance(value, dict):
            name = f"{key}.{part}".strip(".")
            if name.rpartition(".")[2] in OWN_NAMES | WHOLE:
                yield name
            else:
                yield from own_mappings(value, name)


def flat(value: Any, name: str = "") -> Config:  # noqa: ANN401 (whatever YAML holds)
    """Flatten to one level of dotted names; the parts of a list of phases are named by the phase."""
    if isinstance(value, list) and value and all(isinstance(part, dict) and "name" in part for part in value):
        value = {part["name"]: part for part in value}
    if not isinstance(value, dict):
        return {name: value}
    return {
        key: leaf for part, inner in value.items() for key, leaf in flat(inner, f"{name}.{part}".strip(".")).items()
    }


def write_config(folder: Path, config: Config) -> Path:
    """Write the configuration of a start; those of earlier starts stay. Return the file."""
    earlier = len(_configs(folder))
    file = folder / (f"config.resumed-{earlier}.yaml" if earlier else "config.yaml")
    return write_text(file, OmegaConf.to_yaml(OmegaConf.create(config)))


def read_config(folder: Path) -> Config | None:
    """Read the configuration of the last start; ``None`` where there is none.

    Raises:
        CxrnetError: the file holds no configuration, or one that asks for something outside of it, as for a variable of
            the environment: it may be a stranger's.
    """
    if not (files := _configs(folder)):
        return None
    values = unresolved(files[-1])
    if "${" in str(values):
        raise CxrnetError(f"'{files[-1]}' holds ${{...}}, which a run never writes; write the values themselves")
    return plain_config(OmegaConf.create(values))


def unresolved(file: Path) -> Config:
    """Read a YAML file with its interpolations as they stand there: what they ask for may be a secret.

    Raises:
        CxrnetError: there is none.
    """
    try:
        values = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        raise CxrnetError(f"'{file}' can't be read; copy it again") from error
    if not isinstance(values, dict):
        raise CxrnetError(f"'{file}' is no configuration; copy it again")
    return values  # type: ignore[return-value]


def _configs(folder: Path) -> list[Path]:
    """List the files in the order of the starts."""
    later = sorted(folder.glob("config.resumed-*.yaml"), key=lambda file: int(file.stem.rpartition("-")[2]))
    return [file for file in (folder / "config.yaml", *later) if file.is_file()]
