"""The study of a search: its space, and its trials in a storage that several processes share. Optuna's own words.

Optuna is an extra, and nothing heavy is imported here before a study is opened.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig

from cxrnet.core.schema import need
from cxrnet.errors import CxrnetError
from cxrnet.tracking.store import printable, without_secret

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

JOURNAL, OWN_STUDY = "study.journal", "search"
"""The storage of a search that names none, in the sweep's folder, and the name of its study."""
RECORD = "search.json"
"""In the folder of a sweep, which trials of which study are its jobs."""
KEY = "hydra.sweeper"
_FEWEST = 5  # finished trials before the median of their epochs prunes others, as Optuna has it

Space = dict[str, "BaseDistribution"]


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The keys of ``hydra/sweeper=optuna``.

    Attributes:
        n_trials: trials of this command, from 1 on.
        n_jobs: trials that are asked for at once, for a launcher that runs several.
        sampler: what chooses the values of a trial.
        seed: seed of the sampler; a trial's values follow from it, the trial's number and the trials before it.
        pruner: what stops trials early, by the monitored metric of each epoch.
        storage: where the study is: an SQL address, or the path of a journal; ``None``: in the sweep's folder.
        study_name: ``None`` where the sweep has its own storage.
    """

    n_trials: int
    n_jobs: int
    sampler: Literal["tpe", "random", "grid"]
    seed: int
    pruner: Literal["none", "median", "hyperband"]
    storage: str | None
    study_name: str | None

    def __post_init__(self) -> None:
        """Refuse what is out of range.

        Raises:
            CxrnetError: something is.
        """
        for name in ("n_trials", "n_jobs"):
            value = getattr(self, name)
            need(_is_whole(value) and value > 0, f"{KEY}.{name}", value, "a whole number from 1 on")
        need(_is_whole(self.seed) and 0 <= self.seed < 2**31, f"{KEY}.seed", self.seed, "a whole number from 0 on")
        for name, choices in (("sampler", ("tpe", "random", "grid")), ("pruner", ("none", "median", "hyperband"))):
            need(getattr(self, name) in choices, f"{KEY}.{name}", getattr(self, name), f"one of {', '.join(choices)}")
        if self.storage is not None and self.study_name is None:
            raise CxrnetError(f"{KEY}.study_name: none, but a storage may hold several studies; name this one")

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.study_name or OWN_STUDY

    def place(self, folder: Path) -> str:
        """Return the storage: an SQL address, or the path of a journal; ``folder`` is the sweep's."""
        if self.storage is None:
            return str(folder / JOURNAL)
        return self.storage if "://" in self.storage else str(Path(self.storage).resolve())


def search_settings(sweeper: DictConfig) -> SearchSettings | None:
    """Read the settings of a search from Hydra's part of a configuration; ``None`` of another sweeper."""
    if not str(sweeper.get("_target_")).endswith(".OptunaSweeper"):
        return None
    return SearchSettings(**{each.name: sweeper[each.name] for each in fields(SearchSettings)})


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_installed() -> None:
    """Refuse to search without Optuna.

    Raises:
        CxrnetError: it isn't installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise CxrnetError("hydra/sweeper=optuna: Optuna is not installed; pip install 'cxrnet[search]'") from error
    optuna.logging.disable_default_handler()  # its words go where those of all libraries go
    optuna.logging.enable_propagation()


def read_space(overrides: Sequence[Override]) -> Space:
    """Read the space of a search from what has several values on the command line.

    ``interval(a,b)`` are the numbers between, ``tag(log,interval(a,b))`` on a logarithmic scale, ``int(interval(a,b))``
    the whole ones with both ends; ``range(a,b,step)`` and ``choice(a,b)`` are the values that Hydra runs through.

    Raises:
        CxrnetError: there is nothing to search.
    """
    space = {each.get_key_element(): _distribution(each) for each in overrides if each.is_sweep_override()}
    if all(distribution.single() for distribution in space.values()):
        given = ", ".join(str(each.input_line) for each in overrides if each.is_sweep_override())
        raise CxrnetError(
            f"hydra/sweeper=optuna: nothing to search{f', {given} has one value' if given else ''}; give a key "
            "several, as 'schedule.head.lr=tag(log,interval(1e-4,1e-1))', or a space of conf/search, as +search=head"
        )
    if fixed := [str(each.input_line) for each in overrides if each.is_sweep_override() and _is_fixed(each)]:
        raise CxrnetError(f"{fixed[0]}: has one value; give the key as key=value, or an interval with two ends")
    return space


def _is_fixed(override: Override) -> bool:
    """Tell whether an interval has one value beside others that are searched."""
    value = override.value()
    return isinstance(value, IntervalSweep) and value.start == value.end


def _distribution(override: Override) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    try:
        if isinstance(value, IntervalSweep):
            low, high, log = value.start, value.end, "log" in value.tags
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log=log)
            return FloatDistribution(float(low or 0), float(high or 0), log=log)
        if isinstance(value, RangeSweep):
            values: list[Any] = sorted(override.sweep_iterator())
            if not values:
                raise ValueError("it has no values")
            step = abs(value.step)
            if all(isinstance(each, int) for each in values):
                return IntDistribution(values[0], values[-1], step=int(step))
            return FloatDistribution(values[0], values[-1], step=step)
        return CategoricalDistribution([*dict.fromkeys(override.sweep_string_iterator())])
    except ValueError as error:
        raise CxrnetError(f"{override.input_line}: no space to search: {error}") from error


def values_of(key: str, distribution: "BaseDistribution") -> list[Any]:
    """List the values of a key for a grid.

    Raises:
        CxrnetError: there is no end of them.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return [*distribution.choices]
    if isinstance(distribution, IntDistribution):
        return [*range(distribution.low, distribution.high + 1, distribution.step)]
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        steps = round((distribution.high - distribution.low) / distribution.step)
        return [min(distribution.low + place * distribution.step, distribution.high) for place in range(steps + 1)]
    raise CxrnetError(f"{KEY}.sampler: grid, but {key} is an interval; give it values, as choice(0.01,0.1), or range()")


def word_of(key: str, distribution: "BaseDistribution", value: object) -> str:
    """Write a value of a space as an override.

    Raises:
        CxrnetError: the space doesn't have it; it stands in a storage that something else has written to.
    """
    from optuna.distributions import CategoricalDistribution, IntDistribution

    try:
        if not distribution._contains(distribution.to_internal_repr(value)):
            raise ValueError
        if isinstance(distribution, CategoricalDistribution):
            return f"{key}={value}"
        number: Any = value
        return f"{key}={int(number)}" if isinstance(distribution, IntDistribution) else f"{key}={float(number)!r}"
    except (ValueError, TypeError) as error:
        raise CxrnetError(f"search: a trial has {key}={value}, which the space lacks; start a new search") from error


def open_study(
    settings: SearchSettings, folder: Path, direction: Literal["minimize", "maximize"], about: Mapping[str, object]
) -> "Study":
    """Open the study of a search, or make it.

    Args:
        settings: settings of the search, with ``space``.
        folder: folder of the sweep.
        direction: direction in which the metric is better.
        about: what its trials have in common, and their space, by name: a study is of one of each.

    Raises:
        CxrnetError: the storage can't be used, or its study is about something else.
    """
    import optuna

    place, name = settings.place(folder), settings.name
    storage = open_storage(place)
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
    except ValueError as error:  # a journal is read here first
        raise CxrnetError(f"{KEY}.storage: '{printable(place)}' is no storage of Optuna; give another file") from error
    for key, value in about.items():
        if key not in study.user_attrs:
            study.set_user_attr(key, value)
        if (known := study.user_attrs[key]) != value:
            raise CxrnetError(
                f"{KEY}.study_name: '{name}' in '{printable(place)}' is of another search, with {key} {_told(known)}, "
                f"not {_told(value)}; give another study_name"
            )
    study.pruner = make_pruner(settings.pruner)
    return study


def _told(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={inner}" for key, inner in value.items())
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def open_storage(place: str) -> "BaseStorage":
    """Open a storage: an SQL address, or the path of a journal.

    Raises:
        CxrnetError: it can't be used.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        if "://" not in place:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(place))
        # SQLite gives up after 5 s otherwise, with several processes at work.
        patient = {"connect_args": {"timeout": 60}} if place.startswith("sqlite") else {}
        return _database(place, patient)
    except Exception as error:  # of SQLAlchemy, of a driver, of the file system
        said = without_secret(" ".join(str(error).split()), place)
        raise CxrnetError(f"{KEY}.storage: '{printable(place)}' can't be used: {said}") from error


# What databases say to the second of two that make the same table or write its first row.
_TOO_LATE = ("already exists", "UNIQUE constraint", "duplicate key", "Duplicate entry")


def _database(place: str, engine: Mapping[str, object]) -> "BaseStorage":
    """Open a database; of two commands that make its tables at once one is too late for some of them."""
    from optuna.storages import RDBStorage

    for pause in (0.5, 1.0, 2.0):
        try:
            return RDBStorage(place, engine_kwargs=dict(engine))
        except Exception as error:
            if not any(sign in str(error) for sign in _TOO_LATE):
                raise
            time.sleep(pause)
    return RDBStorage(place, engine_kwargs=dict(engine))


def make_pruner(name: str) -> "BasePruner":
    """Make a pruner by its name."""
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if name == "hyperband":
        return HyperbandPruner()  # its most epochs are those of the first finished trial
    return MedianPruner(n_startup_trials=_FEWEST) if name == "median" else NopPruner()


def make_sampler(settings: SearchSettings, space: Space) -> "BaseSampler":
    """Make the sampler of a search.

    Raises:
        CxrnetError: a grid of an interval.
    """
    from optuna.samplers import GridSampler, RandomSampler, TPESampler

    if settings.sampler == "grid":
        grid = {key: values_of(key, distribution) for key, distribution in space.items()}
        return seeded_by_trial(lambda _: GridSampler(grid, settings.seed))  # one order for all that share the study
    kind = TPESampler if settings.sampler == "tpe" else RandomSampler
    return seeded_by_trial(lambda number: kind(seed=(settings.seed * 1_000_003 + number) % 2**32))


def seeded_by_trial(make: Callable[[int], "BaseSampler"]) -> "BaseSampler":
    """Return a sampler that is made anew for each trial, by its number.

    With one state from trial to trial, as Optuna's have it, a search that is resumed would draw its first trials again,
    and so would a second command that shares the study.
    """
    from optuna.samplers import BaseSampler

    class Seeded(BaseSampler):
        def before_trial(self, study: Any, trial: Any) -> None:  # noqa: ANN401 (Optuna's)
            self._of_trial = make(trial.number)
            self._of_trial.before_trial(study, trial)

        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:  # noqa: ANN401
            return self._of_trial.infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:  # noqa: ANN401
            return self._of_trial.sample_relative(study, trial, search_space)

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:  # noqa: ANN401
            return self._of_trial.sample_independent(study, trial, param_name, param_distribution)

    return Seeded()


def one_a_key(overrides: Sequence[Override]) -> list[Override]:
    """Return the overrides of a command line; of two with one key the later one counts."""
    return [*{each.get_key_element().lstrip("+"): each for each in overrides}.values()]
