"""Options of the benchmark: ``config.yaml``, changed by what the user typed, and checked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cxrnet.errors import CxrnetError

CONFIG = Path(__file__).with_name("config.yaml")
BACKBONES = ("mobilenet_v2", "resnet50", "vgg16", "vgg19")
PRECISIONS = {"32-true": "fp32", "bf16-mixed": "bf16"}


def read_options(words: Sequence[str], groups: Sequence[str]) -> DictConfig:
    """Read ``key=value`` words over the defaults; ``only`` becomes a list of groups.

    Raises:
        CxrnetError: there is no such option or group, a value is of the wrong kind, or a file isn't there.
    """
    defaults = OmegaConf.load(CONFIG)
    OmegaConf.set_struct(defaults, True)
    if bad := [word for word in words if "=" not in word]:
        raise CxrnetError(f"'{bad[0]}' is no option; give key=value, see --help")
    try:
        options = cast("DictConfig", OmegaConf.merge(defaults, OmegaConf.from_dotlist(list(words))))
    except OmegaConfBaseException as error:
        raise CxrnetError(f"{error.full_key}: no such option; see --help") from error
    except YAMLError as error:
        raise CxrnetError(f"{' '.join(words)}: {' '.join(str(error).split())}") from error
    if isinstance(options.only, str):
        options.only = [options.only]
    _check("", OmegaConf.to_container(options), OmegaConf.to_container(defaults))
    options.only = _names("only", options.only or list(groups), groups)
    _names("model.backbone", [options.model.backbone], BACKBONES)
    _names("models", options.models, BACKBONES)
    _names("precisions", options.precisions, list(PRECISIONS))
    for name, what in (("timm_benchmark", "timm's benchmark.py"), ("keras_python", "a Python that has TensorFlow")):
        if options[name] is not None and not Path(options[name]).is_file():
            raise CxrnetError(f"{name}: there is no file '{options[name]}'; give {what}, or null")
    return options


def _check(key: str, value: Any, default: Any) -> None:  # noqa: ANN401 (as YAML has them)
    """Refuse a value that is of another kind than its default."""
    if isinstance(default, dict) and isinstance(value, dict):
        for name, its in default.items():
            _check(f"{key}.{name}".lstrip("."), value[name], its)
    elif wanted := _mistake(value, default):
        raise CxrnetError(f"{key}: {value}; give {wanted}")
    elif key == "size" and len(value) != 2:
        raise CxrnetError(f"size: {value}; give height and width in pixels, as [224, 224]")


def _mistake(value: object, default: object) -> str | None:
    """Say what a value has to be; ``None`` if it is."""
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        least = min(1, default)
        fits, wanted = type(value) is int and value >= least, f"a whole number from {least} on"
    elif isinstance(default, float):
        fits, wanted = isinstance(value, int | float) and value > 0, "a number above 0"
    elif isinstance(default, list):
        kind = default[0] if default else ""
        fits = isinstance(value, list) and bool(value or not default) and not any(_mistake(it, kind) for it in value)
        wanted = f"a list, as {default or '[data.num_workers=4]'}"
    elif default is None:
        fits, wanted = isinstance(value, str | list | None), "a name, or null"
    else:
        fits, wanted = isinstance(value, str), "a name"
    return None if fits else wanted


def _names(key: str, given: Sequence[str], known: Sequence[str]) -> list[str]:
    if unknown := [name for name in given if name not in known]:
        raise CxrnetError(f"{key}: '{unknown[0]}' is none of {', '.join(known)}")
    return list(dict.fromkeys(given))
