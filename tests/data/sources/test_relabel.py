import pandas as pd
import pytest

from cxrnet.data.manifest import make_manifest
from cxrnet.data.sources.merged import relabel
from cxrnet.errors import CxrnetError

CLASSES = ("COVID", "Normal")


def manifest_of(*labels: str) -> pd.DataFrame:
    ids = [f"{i}.png" for i in range(len(labels))]
    return make_manifest(pd.DataFrame({"image_id": ids, "path": ids, "label": labels, "source": "a"}), "a")


def test_labels_become_classes_and_what_has_none_is_left_out_and_counted():
    manifest = manifest_of("Covid", "Normal", "Viral Pneumonia", "Covid", "Viral Pneumonia")
    kept, left_out = relabel(manifest, CLASSES, {"Covid": "COVID", "Viral Pneumonia": None}, "classes.a")
    assert kept["label"].tolist() == ["COVID", "Normal", "COVID"]
    assert kept["image_id"].tolist() == ["0.png", "1.png", "3.png"]
    assert kept.index.tolist() == [0, 1, 2]
    assert left_out == {"Viral Pneumonia": 2}
    assert manifest["label"].tolist()[0] == "Covid"


def test_several_labels_may_be_one_class():
    kept, _ = relabel(manifest_of("a", "b", "COVID"), CLASSES, {"a": "Normal", "b": "Normal"}, "classes.a")
    assert kept["label"].tolist() == ["Normal", "Normal", "COVID"]


def test_nothing_may_be_left():
    kept, left_out = relabel(manifest_of("a", "a"), CLASSES, {"a": None}, "classes.a")
    assert (len(kept), left_out) == (0, {"a": 2})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {},
            r"classes\.x: no class of the bundle \(COVID, Normal\) for the label covid, other; give classes\.x=",
        ),
        ({"covid": "COVID"}, r"for the label other; give classes\.x={other: \.\.\.}, with a class or null"),
        (
            {"covid": "COVID", "other": None, "b": None},
            r"classes\.x: 'b' is no label of the data, which are covid, other",
        ),
        ({"covid": "Covid", "other": None}, r"classes\.x: 'Covid' is no class of the bundle, which are COVID, Normal"),
    ],
)
def test_what_does_not_fit_is_said(labels, message):
    with pytest.raises(CxrnetError, match=message):
        relabel(manifest_of("covid", "other"), CLASSES, labels, "classes.x")
