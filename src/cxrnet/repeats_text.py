"""What is said of a run over folds or seeds: of which predictions its result is, and what its spread tells."""

from collections.abc import Mapping, Sequence

import pandas as pd

from cxrnet.evaluation.spread import Moments
from cxrnet.evaluation.wording import HEADLINE
from cxrnet.repeats import Repeat


def how_often(runs: Sequence[Repeat]) -> str:
    """``5 folds``, ``3 seeds``, ``5 folds of 3 seeds``."""
    folds, seeds = runs[0].folds, len({each.seed for each in runs})
    parts = ([f"{folds} folds"] if folds else []) + (
        [f"{seeds} seed{'s' * (seeds > 1)}"] if seeds > 1 or not folds else []
    )
    return " of ".join(parts)


def whose_table(runs: Sequence[Repeat]) -> str:
    """Of which predictions the result is, in few words for the console."""
    seed, seeds = runs[0].seed, {each.seed for each in runs}
    if runs[0].fold is None:
        return f"the table above is of seed {seed} alone; the spread over seeds is in repeats.csv"
    text = "the table above pools the test predictions of all folds"
    if len(seeds) == 1:
        return f"{text}, each image by the network of its fold"
    return f"{text} of seed {seed}; those of the other seeds are in seeds.csv, their mean stands above"


def means_text(seeds: Mapping[str, Moments], level: float) -> str:
    """The mean of each figure over seeds, as a sentence to follow others; empty where there are no figures."""
    if not seeds:
        return ""
    figures = ", ".join(f"{HEADLINE[name]} {each.mean:.3f}{_error(each)}" for name, each in seeds.items())
    number = max(each.runs for each in seeds.values())
    errors = f" (SD; {100 * level:g} % interval over seeds)" if number > 1 else ""
    return f" Mean over {number} seeds, the predictions of all folds of a seed together{errors}: {figures}."


def _error(each: Moments) -> str:
    """Of a mean over seeds; empty of a single one, and without the interval where all gave the same."""
    between = "" if each.interval is None else "; {:.3f} to {:.3f}".format(*each.interval)
    return "" if each.sd is None else f" ({each.sd:.3f}{between})"


def meaning(runs: Sequence[tuple[Repeat, pd.DataFrame]]) -> str:
    """Say of which predictions the result of several runs is, and what their spread tells.

    Args:
        runs: each with its predictions of its test images.
    """
    seed, seeds = runs[0][0].seed, {each.seed for each, _ in runs}
    if runs[0][0].fold is not None:
        return _meaning_of_folds(runs, len(seeds))
    if len(seeds) == 1:
        return f"The result below is that of the only seed, {seed}."
    below = f"The result below is that of seed {seed}, the first."
    if len({frozenset(test["image_id"]) for _, test in runs}) == 1:
        return (
            f"All runs are tested on the same {len(runs[0][1])} images: the spread tells how far a figure depends on "
            "the seed, the intervals of the result how far on the patients. The predictions are not pooled, as each "
            f"image would count {len(runs)} times. {below}"
        )
    return (
        "Each seed splits the data anew: the runs differ in their test images too, and the spread is of both. The "
        f"predictions are not pooled, as images would count several times. {below}"
    )


def _meaning_of_folds(runs: Sequence[tuple[Repeat, pd.DataFrame]], seeds: int) -> str:
    seed = runs[0][0].seed
    n = sum(len(test) for each, test in runs if each.seed == seed)
    says = "Each image is a test image of one fold, and its prediction is that of the network of this fold. "
    if seeds == 1:
        return (
            f"{says}The result below is that of all {n} predictions together. The spread is over the {len(runs)} "
            "folds: their training and validation images and their test images differ."
        )
    return (
        f"{says}Each seed draws folds of its own; its result is that of all {n} predictions of its folds together. "
        f"Over seeds: mean and spread of the {seeds} results, each on the same {n} images. Over folds: all {len(runs)} "
        "runs, each on the test images of its fold; the standard deviation is that within a seed, so that the two are "
        f"not mixed. The tables and figures below, with their intervals, are of seed {seed}, the first."
    )
