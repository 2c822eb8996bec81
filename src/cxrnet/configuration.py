"""A composed configuration as plain data, and as a file in a run's folder.

``config.yaml`` is what the run began with; each time it is resumed, ``config.resumed-1.yaml`` and so on join it.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cxrnet.whole_file import write_text

Config = dict[str, Any]


def plain_config(config: DictConfig) -> Config:
    """Dictionaries, lists and values, interpolations resolved.

    Raises:
        omegaconf.errors.OmegaConfBaseException: a mandatory value is missing, or an interpolation leads nowhere.
    """
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


def flat(value: Any, name: str = "") -> Config:  # noqa: ANN401 (whatever YAML holds)
    """One level of dotted names; the parts of a list of phases are named by the phase."""
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
    """The configuration of the last start; ``None`` where there is none."""
    files = _configs(folder)
    return plain_config(OmegaConf.load(files[-1])) if files else None  # type: ignore[arg-type]


def _configs(folder: Path) -> list[Path]:
    """The files in the order of the starts."""
    later = sorted(folder.glob("config.resumed-*.yaml"), key=lambda file: int(file.stem.rpartition("-")[2]))
    return [file for file in (folder / "config.yaml", *later) if file.is_file()]
