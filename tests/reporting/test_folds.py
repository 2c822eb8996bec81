"""The sentences on several runs; tests/integration/test_repeats.py pools real ones."""

import pandas as pd

from cxrnet.evaluation.comparison import Moments
from cxrnet.reporting.folds import FinishedPart, how_often, meaning, means_text, whose_table


def part(seed: int, fold: int | None, *ids: str) -> FinishedPart:
    test = pd.DataFrame({"image_id": ids or [str(fold)]})
    return FinishedPart(f"seed{seed}", seed, fold, data=None, test=test, bundle=None, metrics=None)


FOLDS = [part(0, fold) for fold in (1, 2, 3)]
BOTH = [part(seed, fold) for seed in (0, 1) for fold in (1, 2, 3)]


def test_over_seeds_nothing_is_pooled():
    same = meaning([part(4, None, "a", "b"), part(0, None, "b", "a")])
    assert same.startswith("All runs are tested on the same 2 images")
    assert same.endswith("that of seed 4, the first.")
    assert "differ in their test images too" in meaning([part(0, None, "a", "b"), part(1, None, "a", "c")])
    assert meaning([part(3, None, "a")]).endswith("that of the only seed, 3.")


def test_over_folds_all_images_are_pooled_and_seeds_are_kept_apart():
    assert "that of all 3 predictions together. The spread is over the 3 folds" in meaning(FOLDS)
    assert "the 2 results, each on the same 3 images. Over folds: all 6 runs" in meaning(BOTH)


def test_the_mean_over_seeds_is_said():
    seeds = {
        "accuracy": Moments(2, 0.8, 0.05, 0.75, 0.85, (0.35, 1.0)),
        "roc_auc_macro": Moments(1, 0.9, None, 0.9, 0.9, None),
    }
    assert means_text(seeds, 0.95).endswith(": Accuracy 0.800 (0.050; 0.350 to 1.000), ROC-AUC, macro 0.900.")
    assert means_text({}, 0.95) == ""


def test_in_few_words():
    assert [how_often(runs) for runs in (BOTH, FOLDS, [part(4, None)])] == ["3 folds of 2 seeds", "3 folds", "1 seed"]
    assert "all folds of seed 0;" in whose_table(BOTH)
    assert whose_table(FOLDS).endswith("all folds, each image by the network of its fold")
