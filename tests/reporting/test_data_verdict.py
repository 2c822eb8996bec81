"""The verdict on a data set: nothing is a finding whose interval holds "nothing"."""

import pandas as pd
import pytest

from cxrnet.data.leaks import marked_duplicates
from cxrnet.data.manifest import make_manifest
from cxrnet.evaluation.association import Association
from cxrnet.reporting.data_verdict import AcquisitionProbe, Checks, LabelProbe, Verdict, judge

NO_PAIRS = pd.DataFrame(columns=["image_id_a", "image_id_b", "kind", "label_a", "label_b"]).astype("string")
DOUBTED = pd.DataFrame({"image_id": ["a"], "label": ["Covid"], "suggested": ["Normal"]})


def manifest(**changes) -> pd.DataFrame:
    rows = {
        "image_id": ["a", "b", "c", "d"],
        "label": ["Covid", "Normal"] * 2,
        "split": ["train", "train", "val", "test"],
        "patient_id": ["1", "2", "3", "4"],
        "path": "x.png",
        "source": ["north", "south"] * 2,
    }
    return make_manifest(pd.DataFrame({**rows, **changes}), "invented")


def auc(value, low, high):
    return {"value": value, "n": 100, "interval": [low, high], "method": "bootstrap on log odds"}


def verdict(rows: pd.DataFrame, pairs: pd.DataFrame = NO_PAIRS, **changes) -> Verdict:
    nothing = {
        "headers": pd.DataFrame({"format": [], "mode": []}),
        "decoys": [],
        "source": Association(0.05, (0.0, 0.3), 100),
        "acquisition": AcquisitionProbe(auc(0.55, 0.45, 0.64), {"mean": auc(0.6, 0.51, 0.69)}),
        "labels": LabelProbe(DOUBTED.head(0), auc(0.8, 0.7, 0.9), "thumbnails"),
    }
    return judge(rows, Checks(pairs=marked_duplicates(pairs, rows), **{**nothing, **changes}))


def test_clean_data_have_no_finding_and_say_what_was_looked_for() -> None:
    said = verdict(manifest())
    assert said.findings == []
    assert said.gaps == []
    for words in (
        "no test image has a duplicate in train or val",
        "no patient of val has images in train",
        "no duplicates were found among 4 images",
        "the source is not shown to tell the class: Cramér's V 0.05 (0.00 to 0.30), n = 100",
        "not shown to tell the class (AUC 0.550 (0.45 to 0.64), n = 100)",
        "no label is doubted by a linear model on thumbnails",
    ):
        assert any(words in text for text in said.clean), words


def test_findings_say_what_carries_them() -> None:
    parts = {"width": auc(0.7, 0.6, 0.8), "mean": auc(0.9, 0.8, 1.0), "sd": auc(0.55, 0.4, 0.7)}
    said = verdict(
        manifest(split=["train", "test", "val", "test"], patient_id=["1", "1", "3", "4"]),
        source=Association(0.9, (0.7, 1.0), 100),
        acquisition=AcquisitionProbe(auc(0.93, 0.9, 0.95), parts),
        decoys=["a"],
        left_out=2,
    )
    text = "\n".join(said.findings)
    for words in (
        "2 of 6 images could not be read and are left out",
        "1 of 2 test images show patients who also have images in train or val",
        "1 of 4 images has two grey levels or one",
        "the source of an image tells its class (Cramér's V 0.90 (0.70 to 1.00), n = 100); north, south have images of",
        "(AUC 0.930 (0.90 to 0.95), n = 100; mean grey value alone 0.90, width in pixels alone 0.70): a network may",
    ):
        assert words in text
    assert "spread of grey values" not in text  # its interval holds 0.5


def test_duplicates_with_two_labels_or_two_patients_are_findings() -> None:
    pairs = pd.DataFrame(
        {"image_id_a": ["a"], "image_id_b": ["b"], "kind": ["cropped"], "label_a": ["Covid"], "label_b": ["Normal"]}
    )
    text = "\n".join(verdict(manifest(), pairs).findings)
    assert "2 images are duplicates with different labels (a (Covid) = b (Normal))" in text
    assert "1 of 1 pairs of duplicates stand under two patients" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": Association(None, None, 4, "all are of source 'x'")}, "can't be told: all are of source 'x'"),
        ({"source": Association(1.0, None, 4, "4 cases are too few")}, "is not certain: 4 cases are too few"),
        ({"acquisition": AcquisitionProbe(gap="all images were made alike")}, "can't be told: all images were made"),
        (
            {"acquisition": AcquisitionProbe({"value": 1.0, "n": 4, "interval_reason": "all are of one patient"})},
            "is not certain (AUC 1.000, n = 4): all are of one patient",
        ),
        ({"labels": LabelProbe(gap="there is one class only")}, "can't be looked for: there is one class only"),
        ({"labels": LabelProbe(DOUBTED, auc(0.8, 0.7, 0.9), "thumbnails")}, "1 of 4 labels is doubted by a linear"),
        ({"limit": 3}, "no more than 3 images of each class"),
    ],
)
def test_what_cannot_be_told_is_a_gap_and_no_finding(changes, words) -> None:
    said = verdict(manifest(), **changes)
    assert any(words in text for text in said.gaps)
    assert said.findings == []


def test_data_without_split_or_that_cannot_be_trained_on_say_so_first() -> None:
    said = verdict(manifest(split=[None] * 4), unusable="data: only one class ('Covid')")
    assert said.findings[0] == "it can't be trained on as it is: data: only one class ('Covid')"
    assert any("the images have no split" in text for text in said.gaps)
