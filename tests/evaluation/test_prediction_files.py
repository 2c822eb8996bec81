import numpy as np
import pandas as pd
import pytest

from cxrnet.evaluation.prediction_files import growing_file
from cxrnet.evaluation.predictions import make_predictions, read_predictions


def table(start: int, count: int) -> pd.DataFrame:
    ids = [f"{i}.png" for i in range(start, start + count)]
    rows = pd.DataFrame(
        {"image_id": ids, "path": ids, "label": "a", "split": pd.NA, "source": "s", "patient_id": pd.NA}
    )
    logits = np.random.default_rng(start).normal(size=(count, 2)).astype(np.float32)
    return make_predictions(rows, ("a", "b"), logits)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_parts_make_one_table(tmp_path, suffix):
    path = tmp_path / f"predictions.{suffix}"
    with growing_file(path) as add:
        add(table(0, 3))
        assert not path.exists()
        add(table(3, 2))
    expected = pd.concat([table(0, 3), table(3, 2)], ignore_index=True)
    pd.testing.assert_frame_equal(read_predictions(path), expected, check_dtype=suffix == "parquet")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_goes_wrong_leaves_no_file_and_the_old_one_as_it_was(tmp_path, suffix):
    path = tmp_path / f"predictions.{suffix}"
    path.write_text("old")

    def stop() -> None:
        with growing_file(path) as add:
            add(table(0, 3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
