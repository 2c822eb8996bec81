import pandas as pd
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.metrics import label_codes, validation_codes


def test_validation_images_and_a_table_without_splits_are_taken(make_table) -> None:
    for split in ("val", pd.NA):
        table = make_table().assign(split=pd.array([split] * 60, dtype="string"))
        assert (validation_codes(table, "temperature") == label_codes(table)).all()


def test_other_tables_are_refused(make_table) -> None:
    mixed = pd.concat([make_table(n=5), make_table(n=20, split="val"), make_table(n=3, split="train")])
    with pytest.raises(CxrnetError, match=r"temperature: 8 of 28 images are of split test, train; .* give only those"):
        validation_codes(mixed, "temperature")
    with pytest.raises(CxrnetError, match="operating_points: there are no validation images"):
        validation_codes(make_table().iloc[:0], "operating_points")
    with pytest.raises(CxrnetError, match="20 of 20 images have no label"):
        validation_codes(make_table(n=20, split="val").assign(label=pd.NA), "operating_points")
