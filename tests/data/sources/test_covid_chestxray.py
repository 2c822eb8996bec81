import csv
import io
import logging

import pytest

from cxrnet.data.sources.covid_chestxray import covid_chestxray, read_metadata, select
from cxrnet.errors import CxrnetError

COLUMNS = "patientid,offset,sex,age,finding,view,modality,location,folder,filename,url,license,other_notes,"
RULE = {
    "views": ["PA", "AP"],
    "fallback_views": ["AP Supine"],
    "findings": {"covid": ["*COVID-19*"], "non_covid": ["*"]},
    "left_out_findings": ["todo", "Unknown", ""],
}


def row(patientid, filename, finding="COVID-19", view="PA", modality="X-ray", folder="images", **more):
    named = {"patientid": patientid, "filename": filename, "finding": finding, "view": view, "modality": modality}
    return {**named, "folder": folder, **more}


def make(root, rows, files=None, encoding="utf-8"):
    """A small copy in the layout of the collection, with all files that the rows name if not told otherwise."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS.split(","), restval="")
    writer.writeheader()
    writer.writerows(rows)
    (root / "images").mkdir(parents=True)
    (root / "metadata.csv").write_bytes(text.getvalue().encode(encoding))
    for name in {row["filename"] for row in rows} if files is None else files:
        (root / "images" / name).write_bytes(b"x")
    return root


def read(root, **changes):
    return covid_chestxray(root, **{**RULE, **changes})


def test_a_row_becomes_an_image_with_what_is_known_of_it(tmp_path):
    known = {"sex": "F", "age": "59", "url": "https://a.org", "license": "CC BY", "location": "Köln", "": "more notes"}
    rows = [row("313b", "a b.JPG", "Pneumonia", "AP", **known), row("7", "c.png", license=" ")]
    root = make(tmp_path, rows, encoding="latin-1")  # as a spreadsheet may have saved it
    mask = root / "annotations" / "lungVAE-masks" / "a b_mask.png"
    mask.parent.mkdir(parents=True)
    mask.write_bytes(b"x")
    manifest = read(root)
    first, second = (manifest.loc[i].dropna().to_dict() for i in range(2))
    assert first == {
        "image_id": "a b.JPG", "path": str(tmp_path.resolve() / "images" / "a b.JPG"), "label": "non_covid",
        "patient_id": "313b", "view": "AP", "source": "covid_chestxray", "mask_path": str(mask.resolve()),
        "finding": "Pneumonia", "sex": "F", "age": "59", "url": "https://a.org", "license": "CC BY", "location": "Köln",
    }  # fmt: skip
    assert second["label"] == "covid"
    assert not {"license", "mask_path", "group_id", "split"} & set(second)
    assert not [name for name in manifest.columns if name.startswith("Unnamed") or not name]


def test_every_reason_for_leaving_out_is_counted(tmp_path, caplog):
    rows = [
        row("1", "kept.png"),
        row("1", "supine.png", view="AP Supine"),
        row("2", "fallback.png", view="AP Supine"),
        row("3", "volume.nii.gz", modality="CT", folder="volumes"),
        row("3", "ct.png", modality="CT", view="Axial"),
        row("4", "side.png", view="L"),
        row("4", "what.png", view=""),
        row("5", "todo.png", "todo"),
        row("5", "empty.png", ""),
        row("6", "sars.png", "SARS"),
        row("7", "gone.png"),
        row("8", "kept.png"),
    ]
    root = make(tmp_path, rows, [row["filename"] for row in rows if row["filename"] != "gone.png"] + ["decoy.jpg"])
    with caplog.at_level(logging.INFO, "cxrnet"):
        manifest = read(root, findings={"covid": ["*COVID-19*"], "other": []})
    assert manifest["image_id"].tolist() == ["fallback.png", "kept.png"]
    assert (
        "4 of 12 rows (4 patients) kept by the metadata, of which 3 have their file here (2 images); left out:"
        in caplog.text
    )
    for reason in (
        "fallback view of a patient with PA or AP 1", "a volume, no image 1", "not an X-ray 1", "view L 1",
        "view not known 1", "finding todo 1", "finding not known 1", "finding SARS 1", "file not here 1",
        "second row of a file 1",
    ):  # fmt: skip
        assert reason in caplog.text
    assert "1 files are not in" in caplog.text
    assert "gone.png" in caplog.text


def test_the_first_class_with_a_pattern_that_fits_wins(tmp_path):
    root = make(tmp_path, [row("1", "a.png", "COVID-19, ARDS"), row("2", "b.png", "ARDS"), row("3", "c.png", "SARS")])
    assert read(root)["label"].tolist() == ["covid", "non_covid", "non_covid"]
    three = {"ards": ["*ARDS*"], "covid": "*COVID-19*", "other": ["*"]}
    assert read(root, findings=three)["label"].tolist() == ["ards", "ards", "other"]
    assert read(root, left_out_findings="*ARDS*")["image_id"].tolist() == ["c.png"]


def test_patients_who_share_a_file_are_tied_and_the_file_counts_once(tmp_path):
    rows = [
        row("285", "shared.png"),
        row("285", "one.png"),
        row("339", "shared.png"),
        row("339", "two.png"),
        row("4", "four.png"),
        row("5", "side.png", view="L"),
        row("6", "side.png", view="L"),
        row("6", "front.png"),
    ]
    manifest = read(make(tmp_path, rows)).set_index("image_id")
    assert manifest.index.tolist() == ["four.png", "front.png", "one.png", "shared.png", "two.png"]
    assert manifest["patient_id"].to_dict()["shared.png"] == "285"
    groups = manifest["group_id"].dropna()
    assert groups.to_dict() == dict.fromkeys(["one.png", "shared.png", "two.png"], "285, 339") | {"front.png": "5, 6"}


def test_a_file_whose_rows_disagree_is_left_out(tmp_path, caplog):
    root = make(tmp_path, [row("1", "a.png"), row("2", "a.png", "SARS"), row("3", "b.png")])
    with caplog.at_level(logging.INFO, "cxrnet"):
        assert read(root)["image_id"].tolist() == ["b.png"]
    assert "rows of one file that disagree on its class 2" in caplog.text


@pytest.mark.parametrize("there", [[], ["images"]])
def test_a_folder_that_is_not_the_collection(tmp_path, there):
    for name in there:
        (tmp_path / name).mkdir()
    missing = "has no metadata.csv" if there else "has no images/ and no metadata.csv"
    with pytest.raises(CxrnetError, match=rf"'{tmp_path}' {missing}; covid_chestxray needs .*README"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no table"),
        ("patientid,filename\n1,a.png\n", "has no column view, modality, folder, finding, sex, age, url, license, lo"),
        (COLUMNS + "\n1,,,,todo,PA,X-ray,,images,a.png,,,,\n", r"no row of .* is kept \(finding todo 1\)"),
        (COLUMNS + "\n1,,,,SARS,PA,X-ray,,images,a.png,,,,\n", r"none of the 1 images .*\(a.png\)"),
    ],
)
def test_metadata_that_can_not_be_used(tmp_path, content, message):
    (tmp_path / "images").mkdir()
    (tmp_path / "metadata.csv").write_text(content)
    with pytest.raises(CxrnetError, match=rf"^data[^\n]*{message}[^\n]*$"):
        read(tmp_path)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("views", "fallback", "rows", "patients", "images"),
    [
        (["PA", "AP"], [], 408, 262, 395),
        (["PA", "AP"], ["AP Supine"], 510, 319, 495),
        (["PA", "AP", "AP Supine"], [], 542, 319, 527),
    ],
)
def test_the_published_rule_on_the_real_collection(shared, caplog, views, fallback, rows, patients, images):
    root = shared / "data" / "covid_chestxray"
    rule = RULE | {"views": views, "fallback_views": fallback}
    kept, reasons = select(read_metadata(root / "metadata.csv"), **rule)
    assert (len(kept), kept["patientid"].nunique()) == (rows, patients)
    assert rows + reasons.total() == 751
    here = kept["filename"].isin({path.name for path in (root / "images").iterdir()})
    assert (here.sum(), kept.loc[here, "filename"].nunique()) == (images + 4, images)
    with caplog.at_level(logging.INFO, "cxrnet"):
        manifest = covid_chestxray(root, **rule)
    assert len(manifest) == images
    assert f"{rows} of 751 rows ({patients} patients) kept by the metadata, of which {images + 4} have" in caplog.text
