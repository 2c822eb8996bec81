"""The trials of a search as a table, and the plots of their history and of what mattered."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import matplotlib.style
import pandas as pd
from matplotlib import rc_context

from cxrnet.core import console
from cxrnet.core.spreadsheet import to_csv
from cxrnet.reporting.plots.style import PALETTE, STYLE, legend_below, save

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

TRIALS, HISTORY, IMPORTANCE = "trials.csv", "search_history.png", "search_importance.png"


def write_study(study: "Study", jobs: Mapping[int, int], monitor: str, folder: Path) -> list[Path]:
    """Write the trials of a study, and draw what can be drawn of them.

    Args:
        study: with whatever trials it has, those of other commands that share it included.
        jobs: number of the job of this sweep by number of the trial.
        monitor: the metric that is searched by.
        folder: where to write.

    Returns:
        The files.
    """
    trials = study.trials
    to_csv(trials_table(trials, jobs, monitor), folder / TRIALS)
    files = [folder / TRIALS]
    done = [trial for trial in trials if trial.value is not None and trial.state.name == "COMPLETE"]
    if len({trial.value for trial in done}) < 2:
        console.say("plots", "none: fewer than two trials with different scores")
        return files
    return [*files, *_draw(study, monitor, folder)]


def trials_table(trials: "list[FrozenTrial]", jobs: Mapping[int, int], monitor: str) -> pd.DataFrame:
    """Lay out trials, one row each in their order: ``trial``, ``job`` (empty of another command's), ``state``, the
    metric, ``epochs`` that were reported to the pruner, ``seconds`` and a column a key of the space.
    """  # noqa: D205
    keys = [*dict.fromkeys(key for trial in trials for key in trial.params)]
    return pd.DataFrame(
        {
            "trial": [trial.number for trial in trials],
            "job": pd.array([jobs.get(trial.number) for trial in trials], "Int64"),
            "state": [trial.state.name.lower() for trial in trials],
            monitor: [trial.value if trial.state.is_finished() else None for trial in trials],
            "epochs": pd.array([trial.last_step for trial in trials], "Int64"),
            "seconds": [trial.duration.total_seconds() if trial.duration else None for trial in trials],
            **{key: [trial.params.get(key) for trial in trials] for key in keys},
        }
    )


def _draw(study: "Study", monitor: str, folder: Path) -> list[Path]:
    """Draw Optuna's plots in the style of all others.

    Optuna draws with pyplot and takes its "ggplot" style, for as long as the process lives: here that is our style, and
    for these plots.
    """
    from matplotlib import pyplot
    from optuna.importance import get_param_importances
    from optuna.visualization.matplotlib import plot_optimization_history, plot_param_importances

    files = []
    with rc_context(), patch.dict(matplotlib.style.library, ggplot=STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls these functions experimental
        backend = pyplot.get_backend()
        pyplot.switch_backend("agg")
        try:
            axes: Any = plot_optimization_history(study, target_name=monitor)
            axes.set_title("Trials of the search, and the best so far")
            axes.set_ylabel(monitor)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.collections[0].set_label("trial")
            axes.lines[0].set_label("best so far")
            _colour(axes)
            legend_below(axes, 2)
            files.append(save(axes.figure, folder / HISTORY))
            if any(get_param_importances(study).values()):
                axes = plot_param_importances(study, target_name=monitor)
                axes.set_title("", loc="left")
                axes.set_title(f"Importance for {monitor} (PED-ANOVA)")
                axes.set_xlabel("share of the importance")
                axes.set_ylabel("")
                axes.get_legend().remove()
                _colour(axes)
                files.append(save(axes.figure, folder / IMPORTANCE))
        except (ValueError, RuntimeError) as error:  # too few trials, or all with the same values
            console.say("plots", f"not all: {' '.join(str(error).split())}")
        finally:
            pyplot.close("all")
            pyplot.switch_backend(backend)
    return files


def _colour(axes: Any) -> None:  # noqa: ANN401 (Optuna says no type)
    """Give dots, lines and bars our colours."""
    for place, artists in enumerate((axes.collections, axes.lines, axes.patches)):
        for artist in artists:
            artist.set_color(PALETTE[place % 2])
