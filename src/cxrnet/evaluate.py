"""``python -m cxrnet.evaluate bundle=<run> data=<option>``: one bundle on external data; see ``conf/evaluate.yaml``."""

import re
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from cxrnet.cli.app import entry_point
from cxrnet.cli.command_line import parsed
from cxrnet.core.config import OWN_NAMES
from cxrnet.core.process import quick_imports
from cxrnet.errors import CxrnetError
from cxrnet.workflows.settings import Evaluate

COUNTED = ("root", "manifest", "on_error", "known_issues")  # of a data option; the rest is for training
REPLACED = re.compile(rf"sets\.([^.=]+)\..*\b({'|'.join(OWN_NAMES)})=null")  # by typed_words, before a mapping
OPTION_KEY = re.compile(r"[+~]*((?:data|sets\.[^.=]+)\.([^.=]+))")


def hydra_words(arguments: list[str]) -> list[str]:
    """Translate what users type into what Hydra composes.

    ``external=[a,b]`` becomes ``+data@sets.a=a +data@sets.b=b``, which puts each data option below its own name, and
    ``classes.<name>=...`` and ``sets={...}`` get the ``++`` that Hydra wants for new names. ``classes=null`` is left
    out, as there are none to begin with, and so is the end of a default where a set has none.

    Raises:
        CxrnetError: ``external`` names no options, or a key of a data option counts for training only.
    """
    given = [word.lstrip("+") for word in arguments if word.lstrip("+").startswith("external=")]
    external = {name: option for word in given for name, option in _named(word)}
    words: list[str] = []
    for word in arguments:
        if (key := OPTION_KEY.match(word)) and key[2] not in COUNTED:
            raise CxrnetError(f"{key[1]}: means nothing here; of a data option only {', '.join(COUNTED)} count")
        if word.lstrip("+") in given:
            words += [f"+data@sets.{name}={option}" for name, option in _named(word.lstrip("+"))]
        elif (replaced := REPLACED.fullmatch(word)) and replaced[1] not in external:  # there is no default
            continue
        elif word != "classes=null":
            words.append(f"++{word}" if word.startswith(("classes.", "classes=", "sets={")) else word)
    return words


def _named(word: str) -> Iterator[tuple[str, str]]:
    """Read names and options of data from ``external=[a,b]`` or ``external={name: a}``."""
    override = parsed(word)
    value = word.partition("=")[2] if override is None else override.value()
    if isinstance(value, list) and len(set(map(str, value))) == len(value):
        value = {option: option for option in value}
    if not isinstance(value, dict) or not all(isinstance(option, str) for option in value.values()):
        raise CxrnetError(
            f"external: {value} won't do; give options of data, as [a, b], or names for them, as {{n: a}}"
        )
    for name, option in value.items():
        if not re.fullmatch(r"\w[\w-]*", str(name)):
            raise CxrnetError(f"external: '{name}' is no name for a folder; use letters, digits, _ and -")
        yield str(name), option


@entry_point(Evaluate, hydra_words)
def main(config: DictConfig) -> None:
    """Evaluate one bundle; the heavy imports wait until the configuration is known to be sound."""
    from hydra.core.hydra_config import HydraConfig

    with quick_imports():
        from cxrnet.workflows.evaluate import evaluate_external

    hydra = HydraConfig.get()
    command = ["python", "-m", "cxrnet.evaluate", *hydra.overrides.task]
    evaluate_external(config, Path(hydra.runtime.output_dir), hydra.runtime.choices["data"], command)


if __name__ == "__main__":
    main()
