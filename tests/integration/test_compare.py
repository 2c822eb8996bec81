"""``python -m cxrnet.compare`` on a real sweep, as a user types it."""

from pathlib import Path

import pandas as pd
import pytest

SMALL = ("model=custom_cnn", "trainer=debug", "data.size=[32,32]", "data.manifest.images=48")


@pytest.fixture(scope="module")
def workplace(make_place, command) -> Path:
    """A folder with a sweep over two losses, in MLflow."""
    folder = make_place("work place")
    done = command(folder, "train", "-m", *SMALL, "loss=cross_entropy,focal", "tracking.experiment=two losses")
    assert done.returncode == 0, done.stderr
    return folder


def test_the_jobs_of_a_sweep_stand_in_one_table(workplace, command):
    (sweep,) = (workplace / "outputs" / "sweeps").iterdir()
    quick = ("resamples=100", "metrics=[accuracy,sensitivity_Normal]")
    done = command(workplace, "compare", f"sweep={sweep.relative_to(workplace)}", *quick)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = (workplace / "outputs" / "comparisons").iterdir()
    assert f"outputs/comparisons/{folder.name}/comparison.html" in done.stdout
    board = pd.read_csv(folder / "leaderboard.csv")
    assert set(board["run"]) == {"loss=cross_entropy", "loss=focal"}
    facts = ["backbone", "phases", "seed", "split", "manifest digest"]
    assert board[[*facts, "accuracy", "accuracy_low", "sensitivity_Normal"]].notna().all(axis=None)


@pytest.fixture(scope="module")
def folds(tmp_path_factory, command) -> Path:
    """A folder with folds that part patients, and, with two seeds, folds that don't, compared."""
    folder = tmp_path_factory.mktemp("folds")
    quick = (*SMALL, "evaluation.resamples=100", "tracking=none")
    for line in (("folds_by=image", "hydra.run.dir=leaky"), ("+seeds=[0,1]", "hydra.run.dir=clean")):
        done = command(folder, "train", *quick, "+folds=3", *line)
        assert done.returncode == 0, done.stderr
    done = command(folder, "compare", "runs=[leaky,clean]", "resamples=100", "tracking=none", "hydra.run.dir=compared")
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(" ".join(done.stdout.split()))
    return folder


@pytest.mark.slow
def test_a_run_over_folds_says_what_leaked_and_is_not_found_better_for_it(folds):
    said = (folds / "said.txt").read_text()
    pooled = {name: pd.read_parquet(folds / name / "predictions.parquet") for name in ("leaky", "clean")}
    leaked = {name: int(table["leaked"].sum()) for name, table in pooled.items()}
    assert leaked["leaky"] > len(pooled["leaky"]) / 2
    assert leaked["clean"] == 0
    assert f"folds_by=image: {leaked['leaky']} of the {len(pooled['leaky'])} images were leaked" in said
    assert "The tests show" not in said
    board = pd.read_csv(folds / "compared" / "leaderboard.csv").set_index("run")
    leaky, clean = board.loc["folds_by=image"], board.loc["seeds=[0,1]"]
    assert (leaky["leaked images"], clean["leaked images"]) == (leaked["leaky"], 0)
    assert (leaky["networks"], clean["networks"]) == (3, 6)
    assert (leaky["folds"], clean["folds"]) == ("3, by image", "3, by patient")
    assert (leaky["seed"], clean["seed"]) == ("0", "0, the first of 0, 1")
    facts = ["backbone", "phases", "parameters", "training seconds", "weights", "manifest digest"]
    assert board[facts].notna().all(axis=None)
    assert board["manifest digest"].nunique() == 1  # the same images and labels


@pytest.mark.slow
def test_every_metric_stands_in_the_leaderboard_with_its_interval(folds):
    board = pd.read_csv(folds / "compared" / "leaderboard.csv")
    of_all = ["accuracy", "balanced_accuracy", "macro_f1", "roc_auc_macro", "roc_auc_weighted", "pr_auc_macro"]
    of_all += ["brier", "ece", "kappa", "mcc", "log_loss"]
    of_each = ["sensitivity", "specificity", "precision", "npv", "f1", "roc_auc", "pr_auc"]
    for name in (*of_all, *(f"{metric}_{label}" for metric in of_each for label in ("Normal", "COVID-19"))):
        assert {name, f"{name}_low", f"{name}_high"} <= set(board.columns)
    tests = pd.read_csv(folds / "compared" / "tests.csv")
    assert set(tests[tests["metric"].str.startswith("roc_auc_")]["test"]) >= {"DeLong"}


@pytest.mark.slow
def test_the_card_of_a_fold_says_how_it_was_split(folds):
    card = (folds / "leaky" / "seed0_fold2of3" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "fold 2 of 3 is test" in card
    assert "IMAGES, NOT PATIENTS" in card
    assert "split_manifest" not in card
    clean = (folds / "clean" / "seed1_fold1of3" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "fold_manifest(folds=3, fold=0, by=patient, seed=1)" in clean


@pytest.mark.slow
def test_seeds_and_folds_are_kept_apart(folds):
    seeds = pd.read_csv(folds / "clean" / "seeds.csv")
    n = len(pd.read_parquet(folds / "clean" / "manifest.parquet"))
    assert seeds[["seed", "images"]].to_numpy().tolist() == [[0, n], [1, n]]
    for seed, file in ((0, "predictions.parquet"), (1, "predictions_seed1.parquet")):
        table = pd.read_parquet(folds / "clean" / file)
        assert table["image_id"].nunique() == len(table) == n
        right = (table["predicted"] == table["label"]).mean()
        assert seeds.set_index("seed")["accuracy"][seed] == pytest.approx(right)
    assert len(pd.read_csv(folds / "clean" / "repeats.csv")) == 6
    page = (folds / "clean" / "report.html").read_text(encoding="utf-8")
    assert (
        "Mean over 2 seeds, the predictions of all folds of a seed together (SD; 95 % confidence interval over seeds): "
        f"Accuracy {seeds['accuracy'].mean():.3f} ({seeds['accuracy'].std():.3f}" in page
    )
    assert all(f">Over {what}</th>" in page for what in ("seeds", "folds"))
    assert not (folds / "leaky" / "seeds.csv").exists()


def test_experiment_is_that_of_mlflow_and_a_mistake_is_one_line(workplace, command):
    done = command(workplace, "compare", "mlflow_experiment=three losses")
    assert done.returncode == 2
    assert done.stderr.startswith("error: mlflow_experiment: MLflow has no 'three losses'; it has Default, ")
    assert done.stderr.count("\n") == 1
