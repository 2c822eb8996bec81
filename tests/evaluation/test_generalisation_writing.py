import pandas as pd

from cxrnet.evaluation.analysis import analyse
from cxrnet.evaluation.generalisation import generalisation_table
from cxrnet.evaluation.generalisation_writing import write_generalisation
from cxrnet.evaluation.metrics import evaluate


def test_everything_is_in_the_three_files(make_table, settings, tmp_path):
    own, other = make_table(60, strength=3.0), make_table(60, seed=1)
    table = generalisation_table(
        {"north": evaluate(own, 100)}, {"north": evaluate(other, 100)}, {"north": [""] * 3}, {}
    )
    other["view"] = pd.array(["PA", "AP"] * 30, dtype="string")
    files = write_generalisation(
        table,
        0.95,
        tmp_path,
        title="a <model> on north",
        warnings=["north: 3 images are copies", "the images are not known"],
        data_sets={"north": {"copies": "3 taken out (2 of train, 1 of test)"}},
        analyses={"north": analyse(other, evaluate(other, 100), settings, 1.0)},
        command="python -m cxrnet.evaluate bundle=<x>",
        environment={"seed": "0"},
    )
    assert [file.name for file in files] == [f"generalisation.{end}" for end in ("csv", "md", "html")]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in files)
    written = pd.read_csv(files[0], keep_default_na=False, na_values=[""])
    assert written["change"].notna().all()
    assert {"internal_low", "external_high", "change_low", "external_n"} <= set(written)
    markdown, page = (file.read_text(encoding="utf-8") for file in files[1:])
    for text in (markdown, page):
        assert "north: 3 images are copies." in text
        assert "The images are not known." in text
        assert "3 taken out (2 of train, 1 of test)" in text
        assert "ROC-AUC, macro falls by" in text
        assert "view PA" in text
        assert "north: view AP: only " in text
    assert "| north | ROC-AUC, macro | 0.9" in markdown
    assert "a &lt;model&gt; on north" in page
    assert "bundle=&lt;x&gt;" in page
