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

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from cxrnet.cli.app import config_folder
from cxrnet.cli.command_line import parsed
from cxrnet.core.config import Config, flat, read_config, unresolved
from cxrnet.core.schema import unknown_keys
from cxrnet.errors import ANOTHER_VERSION, CxrnetError
from cxrnet.tracking.record import RECORD, last_start, read_record
from cxrnet.tracking.sync import sync, unsent_runs
from cxrnet.workflows.settings import Train

COMMAND = ("python", "-m", "cxrnet.train")
SWEEP_COMMAND = (*COMMAND, "--multirun")
MULTIRUN = {"-m", "--multirun"}
SWEEP_WORD = re.compile(r"\+?hydra(/(launcher|sweeper)=\w+|\.(launcher|sweeper)\.\w+=[\w.+-]+)")
"""Words of Hydra's that the record of a sweep keeps: which launcher and sweeper, and numbers and names for them."""

_MAY_CHANGE = (
    "trainer",
    "logger",
    "tracking",
    "outputs",
    "schedule",
    "finetune",
    "operating_points",
    "defer",
    "evaluation",
    "report",
    "test",
    "data.root",  # the digest of the data tells whether they are the same
    "data.manifest.root",
    "data.num_workers",
    "cache",
    "data.cache",
)
_MORE = ("schedule.", "finetune.", "operating_points.", "defer.", "evaluation.", "test.")
"""Changes that give a finished run more to do; the other ones that it may have leave its result as it is."""
_MUST_STAY = ("schedule.monitor", "schedule.views", "schedule.best_from")

# One name behind these, with a capital letter: a longer path could lead into any module that these have imported.
_CLASSES = re.compile(
    r"(torch\.optim|torch\.nn|torchvision\.transforms(\.v2)?|timm\.optim|lightning\.pytorch(\.(callbacks|loggers|profilers))?)"
    r"\.[A-Z]\w*"
)
# Everything else between ${ and } may call a resolver, as ${oc.env:HOME} or ${${key}:HOME} do.
_PLAIN = re.compile(r"\$\{[\w.]+\}")


def resumed_arguments(arguments: list[str]) -> list[str]:
    """Return the command line that Hydra gets: with ``resume=<folder>`` the run's own one, the new words in its place.

    A new word takes the place of the one with its key, and a new option of a group (``trainer=gpu``) also that of what
    was said of the old one (``trainer.devices=2``). Hydra makes no folder and leaves the one that is there alone.

    Raises:
        CxrnetError: the folder holds no run of this command, its command line is more than a file is trusted with, or
            several runs are asked for.
    """
    given = [_key(word) for word in arguments if not word.startswith("-")]
    folder = next((_folder(word) for word in arguments if _key(word) == "resume"), None)
    if folder is None:
        return arguments
    sweep = _is_sweep(folder)
    if not sweep and MULTIRUN & set(arguments):
        raise CxrnetError("resume: one run goes on at a time; leave -m out")
    own = [*_command(folder)[len(SWEEP_COMMAND if sweep else COMMAND) :], *_former_default(folder, sweep)]
    kept = [word for word in own if not any(f"{_key(str(word))}.".startswith(f"{key}.") for key in given)]
    for word in kept:
        if (reason := _why_not_taken(word, sweep)) is not None:
            raise CxrnetError(
                f"resume: run.json holds {word!r}, which {reason}; if you trust it, type it behind resume=<folder>"
            )
    quoted = str(folder.resolve()).replace("'", r"\'")
    if sweep:
        words = [word for word in arguments if word not in MULTIRUN]
        return ["--multirun", *kept, *words, f"hydra.sweep.dir='{quoted}'"]
    return [*kept, *arguments, f"hydra.run.dir='{quoted}'", "hydra.output_subdir=null"]


def without_resume(overrides: Sequence[str]) -> list[str]:
    """Return the command line without ``resume``, which makes the same run from its beginning."""
    return [word for word in overrides if _key(word) != "resume"]


def check_resumable(folder: Path, config: Config) -> list[str]:
    """Check that a run goes on as it began.

    Returns:
        What the plain configuration changes, ``["trainer.devices: 1 -> 2"]``.

    Raises:
        CxrnetError: something that must stay has changed, or there is nothing to go on with.
        SystemExit: there is nothing to do but to send what has not reached MLflow, which has been done.
    """
    if (began := _began(folder)) is None:  # stopped before it was written: the run goes on from its start
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
    if is_finished(folder, config):
        if any(unsent_runs(folder)):
            raise SystemExit(0 if sync([folder]) else 1)
        raise CxrnetError(
            f"resume: '{folder}' is finished; give it more to do, as finetune=true or a larger schedule.max_epochs"
        )
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in changed]


def is_finished(folder: Path, config: Config) -> bool:
    """Tell whether a run is finished, and the configuration gives it nothing more to do and asks for no other run."""
    if read_record(folder).get("status") != "FINISHED":
        return False
    old, new = flat(_began(folder) or {}), flat(config)
    if old.get("test", True):  # the best job of a search has been tested, which its sweep's own words don't say
        old["test"] = new["test"] = True
    changed = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
    return all(_may_change(name) and not f"{name}.".startswith(_MORE) for name in changed)


def _may_change(name: str) -> bool:
    return name not in _MUST_STAY and any(f"{name}.".startswith(f"{free}.") for free in _MAY_CHANGE)


def check_same_data(folder: Path, digest: str) -> None:
    """Check that the images and their split, by the digest of the manifest, are those that the run began with.

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


def _began(folder: Path) -> Config | None:
    """Read the configuration that a run began with; ``None`` where there is none.

    A version before ``solver`` trained all phases by ``gradient``.
    """
    if (began := read_config(folder)) is not None and isinstance(schedule := began.get("schedule"), dict):
        for phase in (schedule.get("head"), schedule.get("scratch"), *(schedule.get("phases") or ())):
            if isinstance(phase, dict):
                phase.setdefault("solver", "gradient")
    return began


def _former_default(folder: Path, sweep: bool) -> list[str]:
    """Return the word that keeps the solver of a head that a version before ``solver`` began to train."""
    if sweep:
        file = folder / "multirun.yaml"
        config = unresolved(file) if file.is_file() else None
    else:
        config = read_config(folder)
    schedule = (config or {}).get("schedule")
    head = schedule.get("head") if isinstance(schedule, dict) else None
    return ["schedule.head.solver=gradient"] if isinstance(head, dict) and "solver" not in head else []


def _key(word: str) -> str:
    """Return ``model`` of ``model=resnet50``, ``finetune`` of ``+finetune=true``."""
    return word.lstrip("+~").partition("=")[0]


def _folder(word: str) -> Path | None:
    """Return the folder that ``resume=`` names; ``None`` for null and for what Hydra will complain of."""
    override = parsed(word)
    if override is None:
        return None
    if override.is_sweep_override():
        raise CxrnetError("resume: one run or sweep goes on at a time; give one folder")
    value = override.value()
    if value == "":
        raise CxrnetError("resume: no folder is given; give that of a run, as outputs/runs/<time>_<name>")
    return None if value is None else Path(str(value))


def _is_sweep(folder: Path) -> bool:
    start = last_start(read_record(folder))
    command = start.get("command") if isinstance(start, dict) else None
    return isinstance(command, list) and tuple(command[: len(SWEEP_COMMAND)]) == SWEEP_COMMAND


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
            f"resume: '{folder}' holds no run of {COMMAND[-1]} (no {RECORD} of one); give that of a run or a sweep"
        )
    return command


def _why_not_taken(word: object, sweep: bool = False) -> str | None:
    """Say why a word isn't taken from the record of a run, or of a sweep; ``None`` where it is."""
    override = None if not isinstance(word, str) or word.startswith("-") else parsed(word)
    if override is None:
        return "is no key=value"
    if sweep and SWEEP_WORD.fullmatch(str(word)):
        return None
    if not override.is_sweep_override():
        return _why_not_one(str(word), override)
    if not sweep:
        return "gives several values"
    if not override.is_discrete_sweep():  # an interval, of numbers
        return _why_not_taken(f"{override.get_key_element()}=0", sweep)
    words = (f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator())
    return next((reason for reason in map(_why_not_taken, words) if reason is not None), None)


def _why_not_one(word: str, override: Override) -> str | None:
    """Say why a word of one value isn't taken."""
    key, value = override.key_or_group, override.value()
    if re.split(r"[/.]", key)[0] == "hydra" or override.package is not None:
        return "changes Hydra or where a config stands"
    if "${" in _PLAIN.sub("", word):
        return "asks for something outside the configuration"
    texts = map(str, value if isinstance(value, list) else [value])
    if "." not in key and key not in _values() and any(re.search(r"[/\\$]", text) for text in texts):
        return "names a file where the name of an option stands"
    for target in _targets({key.rpartition(".")[2]: value}):
        if not isinstance(target, str) or not (_CLASSES.fullmatch(target) or target in _own_targets()):
            return f"calls {target}, not a part of cxrnet, torch, torchvision, Lightning or timm"
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
    found: set[object] = set()
    for file in config_folder().rglob("*.yaml"):
        if "hydra" not in file.relative_to(config_folder()).parts:
            values: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(file))  # type: ignore[assignment]
            found.update(_targets({key: value for key, value in values.items() if key != "hydra"}))
    return frozenset(found)


@cache
def _values() -> frozenset[str]:
    """Return the keys at the top of the training's configuration that are no groups of options."""
    return frozenset(each.name for each in fields(Train) if not (config_folder() / each.name).is_dir())
