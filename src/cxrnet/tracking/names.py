"""Names that MLflow takes: of metrics, parameters and tags, of artifacts, of runs."""

import hashlib
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

_LONGEST_KEY, LONGEST_PARAM, LONGEST_TAG, LONGEST_DIGEST = 250, 6000, 8000, 36
"""Characters that MLflow 3.17 takes."""
_LONGEST_RUN_NAME, _LONGEST_VALUE = 120, 40

FOLDERS = {
    ".html": "report",
    ".md": "report",
    ".txt": "report",
    ".png": "plots",
    ".csv": "tables",
    ".tex": "tables",
    ".json": "tables",
    ".parquet": "data",
    ".yaml": "config",
}
"""The folder of an artifact by its suffix: in every run a plot has the same path, so that MLflow can compare them."""
_OTHER_FOLDERS = {
    "model_card.json": "report",
    "class_indices.json": "data",
    "label_conflicts.csv": "data",
    "duplicates.csv": "data",
    "run_facts.json": "config",
}
_WHERE = ("tracking", "outputs", "cache", "data.num_workers", "hydra", "resume")


_LONG_NUMBER = re.compile(r"-?\d+\.\d{4,}(e[+-]?\d+)?")
"""A number as a search has it, of more digits than a name should have."""


def safe_key(name: str) -> str:
    """Name a metric, parameter or tag so that MLflow takes it, readable and different for every name.

    A class name may hold anything. MLflow takes at most 250 letters, digits and ``_-. /`` (and ``:``, but not on
    Windows), and no name that differs from its normal form as a path. Other characters become ``_``, and a short hash
    of them and their places, counted from the end, is added: all metrics of a class get the same one, in every run.
    """
    name = unicodedata.normalize("NFC", name)  # in folders on macOS an umlaut is two characters
    fitting = re.sub(r"[^/\w.\- ]", "_", name)
    if fitting != posixpath.normpath(fitting) or fitting.startswith(("/", "..")):
        fitting = re.sub(r"[/.]", "_", fitting)
    changed: object = [(place, name[place]) for place in range(-len(name), 0) if name[place] != fitting[place]]
    if not changed and len(name) <= _LONGEST_KEY:
        return name
    beginning = fitting[: _LONGEST_KEY - 9]
    if beginning != fitting:
        changed = name
    return f"{beginning}_{hashlib.sha256(repr(changed).encode(errors='surrogatepass')).hexdigest()[:8]}"


def shortened(text: str, length: int) -> str:
    """Cut a text to a length; what is no UTF-8 (part of a file's name) is escaped."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def artifact_folder(file: str) -> str:
    """Return the folder of a run's artifacts that a file belongs to; empty for the top."""
    return _OTHER_FOLDERS.get(file, FOLDERS.get(posixpath.splitext(file)[1], ""))


def says_where(key: str) -> bool:
    """Tell whether an override says where a run is written, not what it is."""
    return any(f"{key}.".startswith(f"{where}.") for where in _WHERE)


def run_name(model: str, data: str, overrides: Sequence[str]) -> str:
    """Name a run by what differs from the default: ``"resnet50 covid19_image seed=1"``, ``"demo seed=1"``.

    MLflow's table of runs shows the first twenty characters, so model and data are left out where another option is
    given and they aren't. Of ``data.root`` the last part is told. ``model`` and ``data`` are the chosen options.
    """
    pairs = [word.lstrip("+~").partition("=") for word in overrides]
    told = {key: value for key, _, value in pairs if not says_where(key)}
    if "data.root" in told:
        told["data.root"] = PurePath(told["data.root"].strip("'\"")).name
    options = [told.pop(key) for key in ("experiment", "model", "data") if key in told] or [model, data]
    ends = Counter(key.rpartition(".")[2] for key in told)
    words = []
    for key, value in told.items():
        end = key.rpartition(".")[2]
        words.append(f"{end if ends[end] == 1 else key}={shortened(_told(value), _LONGEST_VALUE)}")
    return shortened(" ".join([*options, *words]), _LONGEST_RUN_NAME)


def job_names(overrides: Sequence[Sequence[str]]) -> list[str]:
    """Name each job by its overrides that not all jobs have.

    Args:
        overrides: overrides of each job, as ``["model=vgg16", "optimizer.lr=0.1"]``.

    Returns:
        ``["model=vgg16 lr=0.1", ...]``, the keys shortened where that leaves them different, and with the number of
        the job before it where that doesn't tell it from the others.
    """
    common = set.intersection(*map(set, overrides)) if overrides else set()
    own = [[override.lstrip("+~").partition("=") for override in task if override not in common] for task in overrides]
    ends = Counter(key.rpartition(".")[2] for key in {key for task in own for key, *_ in task})

    def short(key: str) -> str:
        end = key.rpartition(".")[2]
        return end if ends[end] == 1 else key

    names = [" ".join(f"{short(key)}{equals}{_told(value)}" for key, equals, value in task) for task in own]
    return [
        name if name and names.count(name) == 1 else f"job {place} {name}".strip() for place, name in enumerate(names)
    ]


def _told(value: str) -> str:
    """Write a number of many digits with four of them, as ``0.003457``."""
    return f"{float(value):.4g}" if _LONG_NUMBER.fullmatch(value) else value
