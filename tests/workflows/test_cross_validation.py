"""What is said of several runs; tests/integration/test_repeats.py pools real ones."""

import pandas as pd

from cxrnet.evaluation.over_runs import Moments
from cxrnet.workflows.cross_validation import how_often, meaning, means_text, whose_table
from cxrnet.workflows.folds_and_seeds import Repeat


def table_of(*ids: str) -> pd.DataFrame:
    return pd.DataFrame({"image_id": ids})


def test_over_seeds_with_the_same_test_images_nothing_is_pooled():
    text = meaning([(Repeat(4, None, None), table_of("a", "b")), (Repeat(0, None, None), table_of("b", "a"))])
    assert text.startswith("All runs are tested on the same 2 images")
    assert text.endswith("The result below is that of seed 4, the first.")


def test_over_seeds_that_split_anew_the_spread_is_of_the_test_images_too():
    text = meaning([(Repeat(0, None, None), table_of("a", "b")), (Repeat(1, None, None), table_of("a", "c"))])
    assert "differ in their test images too" in text
    assert text.endswith("The result below is that of seed 0, the first.")


def test_a_single_seed_is_no_spread():
    assert meaning([(Repeat(3, None, None), table_of("a"))]) == "The result below is that of the only seed, 3."


def test_over_folds_all_images_are_pooled_and_seeds_are_kept_apart():
    folds = [(Repeat(0, fold, 3), table_of(str(fold))) for fold in (1, 2, 3)]
    assert "The result below is that of all 3 predictions together. The spread is over the 3 folds" in meaning(folds)
    both = meaning([*folds, *((Repeat(1, fold, 3), table_of(str(fold))) for fold in (1, 2, 3))])
    assert "Over seeds: mean and spread of the 2 results, each on the same 3 images. Over folds: all 6 runs" in both
    assert both.endswith("below, with their intervals, are of seed 0, the first.")


def test_the_mean_over_seeds_is_said():
    seeds = {
        "accuracy": Moments(2, 0.8, 0.05, 0.75, 0.85, (0.35, 1.0)),
        "roc_auc_macro": Moments(1, 0.9, None, 0.9, 0.9, None),
    }
    assert means_text(seeds, 0.95).endswith(
        "of a seed together (SD; 95 % interval over seeds): Accuracy 0.800 (0.050; 0.350 to 1.000), ROC-AUC, macro "
        "0.900."
    )
    assert means_text({}, 0.95) == ""


def test_in_few_words():
    both = [Repeat(seed, fold, 3) for seed in (0, 1) for fold in (1, 2, 3)]
    assert [how_often(runs) for runs in (both, both[:3], [Repeat(4, None, None)])] == [
        "3 folds of 2 seeds",
        "3 folds",
        "1 seed",
    ]
    assert whose_table(both).startswith("the table above pools the test predictions of all folds of seed 0;")
    assert whose_table(both[:3]).endswith("all folds, each image by the network of its fold")
