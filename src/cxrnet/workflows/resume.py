"""``resume=<run folder>``: a run goes on where it stopped, in its folder and in its MLflow run.

Before Hydra composes the configuration, the run's own command line is put before the new one. What came of it must then
be what the run began with, but for what leaves its result true: where it is trained and tracked, and what the schedule
still holds.

``run.json`` may be a stranger's, and must run no code. The options of a run and its values are taken from it. What
reaches into Hydra (its callbacks are made before a command begins), loads a config from elsewhere or reads the
environment is not. A ``_target_`` is called: it must be one that ``conf/`` names itself, or a class that the libraries
list for being configured. Hydra's own target policy, which knows dangerous names, stands behind that.
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

from cxrnet.cli.app import config_folder
from cxrnet.core.config import Config, flat, read_config
from cxrnet.core.schema import unknown_keys
from cxrnet.errors import ANOTHER_VERSION, CxrnetError
from cxrnet.tracking.record import RECORD, last_start, read_record
from cxrnet.tracking.sync import sync, unsent_runs
from cxrnet.workflows.settings import Train

COMMAND = ("python", "-m", "cxrnet.train")

MAY_CHANGE = (
    "trainer",
    "logger",
    "tracking",
    "outputs",
    "schedule",
    "finetune",
    "operating_points",
    "defer",
    "evaluation",
    "data.root",  # the digest of the data tells whether they are the same
    "data.manifest.root",
    "data.num_workers",
    "cache",
    "data.cache",
)
MUST_STAY = ("schedule.monitor", "schedule.views", "schedule.best_from")

# One name behind these, with a capital letter: a longer path could lead into any module that these have imported.
CLASSES = re.compile(
    r"(torch\.optim|torch\.nn|torchvision\.transforms(\.v2)?|timm\.optim|lightning\.pytorch(\.(callbacks|loggers|profilers))?)"
    r"\.[A-Z]\w*"
)
# Everything else between ${ and } may call a resolver, as ${oc.env:HOME} or ${${key}:HOME} do.
PLAIN = re.compile(r"\$\{[\w.]+\}")


def resumed_arguments(arguments: list[str]) -> list[str]:
    """Return the command line that Hydra gets: with ``resume=<folder>`` the run's own one, the new words in its place.

    A new word takes the place of the one with its key, and a new option of a group (``trainer=gpu``) also that of what
    was said of the old one (``trainer.devices=2``). Hydra is kept from making a folder and from writing over the one it
    made.

    Raises:
        CxrnetError: the folder holds no run of this command, its command line is more than a file is trusted with, or
            several runs are asked for.
    """
    given = [_key(word) for word in arguments if not word.startswith("-")]
    folder = next((_folder(word) for word in arguments if _key(word) == "resume"), None)
    if folder is None:
        return arguments
    if {"-m", "--multirun"} & set(arguments):
        raise CxrnetError("resume: one run goes on at a time; leave -m out")
    own = _command(folder)[len(COMMAND) :]
    kept = [word for word in own if not any(f"{_key(str(word))}.".startswith(f"{key}.") for key in given)]
    for word in kept:
        if (reason := _why_not_taken(word)) is not None:
            raise CxrnetError(
                f"resume: run.json holds {word!r}, which {reason}; if you trust it, type it behind resume=<folder>"
            )
    quoted = str(folder.resolve()).replace("'", r"\'")
    return [*kept, *arguments, f"hydra.run.dir='{quoted}'", "hydra.output_subdir=null"]


def without_resume(overrides: Sequence[str]) -> list[str]:
    """Return the command line without ``resume``, which makes the same run from its beginning."""
    return [word for word in overrides if _key(word) != "resume"]


def check_resumable(folder: Path, config: Config) -> list[str]:
    """Check that a run goes on as it began.

    Args:
        folder: of the run.
        config: that it would go on with, plain.

    Returns:
        The changes, ``["trainer.devices: 1 -> 2"]``.

    Raises:
        CxrnetError: something that must stay has changed, or there is nothing to go on with.
        SystemExit: there is nothing to do but to send what has not reached MLflow, which has been done.
    """
    if (began := read_config(folder)) is None:  # stopped before it was written: the run goes on from its start
        return []
    old, new = flat(began), flat(config)
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    if fixed := [name for name in changed if not _may_change(name)]:
        gone = [key for key in unknown_keys(Train, began) if key not in config]  # +mine is kept
        if "/" not in str(old.get("schedule.monitor", "/")):
            gone.append(f"schedule.monitor={old['schedule.monitor']}")
        if gone:
            raise CxrnetError(ANOTHER_VERSION.format(gone[0]))
        name, was = fixed[0], old.get(fixed[0])
        if not any(f"{key}.".startswith(f"{name}.") for key in old):
            raise CxrnetError(
                f"resume: the run began without {name}, with another version of cxrnet or before it was added; start a "
                "new run"
            )
        raise CxrnetError(
            f"resume: {name} was {was} and would be {new.get(name)} now; a run goes on as it began: give {name}={was}, "
            "or start a new run"
        )
    if read_record(folder).get("status") == "FINISHED" and not any(name.startswith("schedule.") for name in changed):
        if any(unsent_runs(folder)):
            raise SystemExit(0 if sync([folder]) else 1)
        raise CxrnetError(
            f"resume: '{folder}' is finished; give it more to do, as finetune=true or a larger schedule.max_epochs"
        )
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in changed]


def check_same_data(folder: Path, digest: str) -> None:
    """Check that the images and their split are those that the run began with.

    Args:
        folder: of the run.
        digest: of the manifest, as it is now.

    Raises:
        CxrnetError: they aren't.
    """
    from cxrnet.data import manifest

    file = folder / "manifest.parquet"
    if not file.exists():  # stopped while it read the images
        return
    if manifest.digest(began := manifest.read_manifest(file)) != digest:
        raise CxrnetError(
            f"resume: the data have changed: other images, labels, patients or splits than the {len(began)} rows of "
            f"'{file}'; put them back, or start a new run"
        )


def _may_change(name: str) -> bool:
    return name not in MUST_STAY and any(f"{name}.".startswith(f"{free}.") for free in MAY_CHANGE)


def _key(word: str) -> str:
    """Return ``model`` of ``model=resnet50``, ``finetune`` of ``+finetune=true``."""
    return word.lstrip("+~").partition("=")[0]


def _folder(word: str) -> Path | None:
    """Return the folder that ``resume=`` names; ``None`` for null and for what Hydra will complain of."""
    override = _parsed(word)
    if override is None:
        return None
    if override.is_sweep_override():
        raise CxrnetError("resume: one run goes on at a time; give one folder")
    value = override.value()
    if value == "":
        raise CxrnetError("resume: no folder is given; give that of a run, as outputs/runs/<time>_<name>")
    return None if value is None else Path(str(value))


def _command(folder: Path) -> list[str]:
    """Return the command that the run was last started with, as it stands in the file."""
    if not folder.is_dir():
        raise CxrnetError(f"resume: '{folder}' is not a folder; give that of a run, as outputs/runs/<time>_<name>")
    try:
        command = last_start(read_record(folder))["command"]
    except (LookupError, TypeError):  # of another command, or made up
        command = None
    if not isinstance(command, list) or tuple(command[: len(COMMAND)]) != COMMAND:
        raise CxrnetError(
            f"resume: '{folder}' holds no run of {COMMAND[-1]} (no {RECORD} of one); give the folder of a run"
        )
    return command


def _why_not_taken(word: object) -> str | None:
    """Say why a word isn't taken from a file; ``None`` where it is."""
    override = None if not isinstance(word, str) or word.startswith("-") else _parsed(word)
    if override is None or override.is_sweep_override():
        return "is no key=value" if override is None else "gives several values"
    key, value = override.key_or_group, override.value()
    if re.split(r"[/.]", key)[0] == "hydra" or override.package is not None:
        return "changes Hydra or where a config stands"
    if "${" in PLAIN.sub("", str(word)):
        return "asks for something outside the configuration"
    texts = map(str, value if isinstance(value, list) else [value])
    if "." not in key and key not in _values() and any(re.search(r"[/\\$]", text) for text in texts):
        return "names a file where the name of an option stands"
    for target in _targets({key.rpartition(".")[2]: value}):
        if not isinstance(target, str) or not (CLASSES.fullmatch(target) or target in _own_targets()):
            return f"calls {target}, not a part of cxrnet, torch, torchvision, Lightning or timm"
    return None


def _parsed(word: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def _targets(value: object) -> Iterator[object]:
    """Yield what stands behind ``_target_``, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "_target_":
                yield inner
            else:
                yield from _targets(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _targets(inner)


@cache
def _own_targets() -> frozenset[object]:
    """Return the targets that the configs name, but for those of Hydra's own part."""
    return frozenset(target for file in config_folder().rglob("*.yaml") for target in _targets(_without_hydra(file)))


@cache
def _values() -> frozenset[str]:
    """Return the keys at the top of the training's configuration that are no groups of options."""
    return frozenset(each.name for each in fields(Train) if not (config_folder() / each.name).is_dir())


def _without_hydra(file: Path) -> Config:
    values: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(file))  # type: ignore[assignment]
    return {key: value for key, value in values.items() if key != "hydra"}
