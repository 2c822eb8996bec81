"""``python -m cxrnet.audit`` and ``cxrnet.explain`` as a user types them, on a run of ``cxrnet.train``."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

QUICK = ("data.size=[64,64]", "model=custom_cnn", "trainer=cpu", "schedule.max_epochs=2", "evaluation.resamples=100")
HALVES = "data.split.fractions={train: 0.4, val: 0.2, test: 0.4}"
PHANTOMS = ("data=phantom", "data.manifest.images=80", "data.manifest.size=64", "+data.manifest.marker=1.0", HALVES)
LOOK = ("resamples=100", "maps=8", "occluded=2")


@pytest.fixture(scope="module")
def workplace(make_place, command) -> Path:
    folder = make_place("audited place")
    done = command(folder, "train", *PHANTOMS, *QUICK)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


@pytest.fixture(scope="module")
def run(workplace) -> Path:
    (found,) = (workplace / "outputs" / "runs").iterdir()
    return found


@pytest.fixture(scope="module")
def audited(workplace, run, command):
    """The folder, and what the command printed."""
    done = command(workplace, "audit", f"bundle={run.relative_to(workplace)}", *LOOK)
    assert done.returncode == 0, done.stderr + done.stdout
    (folder,) = (workplace / "outputs" / "audits").iterdir()
    return folder, done


def test_the_page_has_looks_maps_and_pictures(audited, check_standalone):
    folder, done = audited
    assert done.stderr == ""
    page = (folder / "audit.html").read_text(encoding="utf-8")
    check_standalone(page)
    for text in ("Lungs blacked out", "Border only", "Corners of COVID-19", "Corner markers out", "Inside the lesion"):
        assert text in page
    assert page.count("data:image/png;base64,") >= 8  # two of each class
    looks = pd.read_csv(folder / "audit_looks.csv")
    assert {"lungs out", "corners only", "8 x 8 thumbnail", "acquisition"} <= set(looks["name"])
    maps = pd.read_csv(folder / "audit_maps.csv")
    assert {"Grad-CAM", "Grad-CAM, random weights", "random map", "Occlusion"} <= set(maps["map"])
    assert set(maps["region"]) == {"lungs", "lesion"}


def test_the_run_trained_its_backbone_so_that_only_test_images_are_probed_and_it_is_said(audited):
    _, done = audited
    assert "the probes are of the test images alone: the run trained the backbone" in done.stdout
    assert "32 images of phantom" in done.stdout
    assert "no probe of the source: it is 'phantom' for all images" in done.stdout


def test_the_verdict_stands_before_the_headline_of_the_report_and_in_the_card(audited, run):
    folder, _ = audited
    page = (folder / "audit.html").read_text(encoding="utf-8")
    report = (run / "report.html").read_text(encoding="utf-8")
    gist = next(line for line in page.splitlines() if "hortcut was found" in line)
    assert report.count('<section id="audit">') == 1
    assert gist in report
    assert report.index('<section id="audit">') < report.index('class="cards"')
    card = (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.count("## Audit: what the model looks at") == 1
    assert card.index("## Audit") < card.index("## Found by the checks")
    assert json.loads((run / "model_card.json").read_text())["sections"]


def test_mlflow_has_it_in_both_runs(audited, run, workplace, logged_files):
    from mlflow import MlflowClient

    folder, _ = audited
    client = MlflowClient(f"sqlite:///{workplace}/outputs/mlflow.db")
    own, origin = (json.loads((each / "run.json").read_text())["run_id"] for each in (folder, run))
    tags = client.get_run(origin).data.tags
    assert "hortcut was found" in tags["cxrnet.audit"]
    assert tags["cxrnet.audited_in"] == own
    logged = client.get_run(own)
    assert logged.info.status == "FINISHED"
    assert logged.data.tags["cxrnet.bundle_run_id"] == origin
    assert "audit/findings" in logged.data.metrics
    assert {"report/audit.html", "tables/audit_looks.csv", "tables/audit_changes.csv"} <= logged_files(client, own)


@pytest.fixture
def others(workplace, draw, tmp_path):
    """Draws images of the bundle's classes, without masks and patients."""

    def make(images: int, classes=("COVID-19", "Normal")) -> Path:
        return draw(tmp_path / "other xrays", classes=classes, images=images, seed=3)

    return make


def test_a_bundle_alone_is_audited_on_other_data(workplace, run, others, command, tmp_path):
    shutil.copytree(run / "bundle", tmp_path / "sent" / "bundle")
    root = others(12)
    (root / "Normal" / "bad.png").write_bytes(b"no picture")
    words = (f"bundle={tmp_path / 'sent'}", "data=folder", f"data.root={root}", "data.on_error=skip", "tracking=none")
    before = (run / "report.html").read_bytes()
    done = command(workplace, "audit", *words, *LOOK, "pictures=0", f"hydra.run.dir={tmp_path / 'alone'}")
    assert (done.returncode, done.stderr) == (0, "")
    said = " ".join(done.stdout.split())
    assert "no image has a lung mask: the lungs are taken to lie in a box" in said
    assert "the images of the bundle's run are not known" in said
    assert "1 not an image" in said or "bad.png" in said
    assert "report unchanged: the audit is of other data" in said
    assert (run / "report.html").read_bytes() == before
    assert "data:image/png" not in (tmp_path / "alone" / "audit.html").read_text()


@pytest.mark.parametrize(
    ("images", "classes", "gap"),
    [
        (2, ("COVID-19",), "no probes: only 'COVID-19' has images; two classes are needed"),
        (1, ("COVID-19", "Normal", "Lung Opacity"), "no probes: all images of 'COVID-19' are of one patient"),
    ],
)
def test_too_few_images_are_gaps_and_no_findings(workplace, run, others, command, tmp_path, images, classes, gap):
    root = others(images, classes)
    words = (f"bundle={run}", "data=folder", f"data.root={root}", "tracking=none", *LOOK)
    done = command(workplace, "audit", *words, f"hydra.run.dir={tmp_path / 'few'}")
    assert (done.returncode, done.stderr) == (0, "")
    said = " ".join(done.stdout.split())
    assert gap in said
    assert "A shortcut was found" not in said


def test_every_image_is_explained(workplace, run, others, command, tmp_path):
    root = others(2)
    words = (f"bundle={run}", f"input={root}", "label=Normal")
    done = command(workplace, "explain", *words, f"hydra.run.dir={tmp_path / 'maps'}")
    assert (done.returncode, done.stderr) == (0, "")
    table = pd.read_csv(tmp_path / "maps" / "explanations.csv")
    assert len(table) == 4
    assert set(table["class"]) == {"Normal"}
    for row in table.to_dict("records"):
        picture = Image.open(tmp_path / "maps" / row["picture"])
        assert picture.width > 2 * 224 < picture.width
        assert len(picture.convert("RGB").getcolors(10**6)) > 100
    (again,) = [command(workplace, "explain", *words, f"hydra.run.dir={tmp_path / 'maps'}")]
    assert again.stderr.startswith(f"error: '{tmp_path / 'maps'}' holds explanations already")


def test_a_mistake_is_one_line(workplace, run, others, command, tmp_path):
    shutil.copytree(run / "bundle", tmp_path / "sent" / "bundle")
    root = others(2, ("sick", "well"))
    for name, words, said in (
        ("audit", (f"bundle={tmp_path / 'sent'}",), f"bundle: '{tmp_path / 'sent'}' has no test images of its own"),
        ("audit", ("bundle=nowhere",), "bundle: 'nowhere' is no folder, no id of an MLflow run and no registered"),
        (
            "audit",
            (f"bundle={run}", "data=folder", f"data.root={root}"),
            "classes.folder: no class of the bundle (COVID-19, ",
        ),
        ("audit", (f"bundle={run}", "limit=0"), "limit: 0"),
        ("audit", (f"bundle={run}", "lungs=heart"), "lungs=heart"),
        ("explain", (f"bundle={run}", f"input={root}", "label=sick"), "label: 'sick' is no class of the bundle"),
        ("explain", (f"bundle={run}", "input=nowhere"), "input: 'nowhere' doesn't exist"),
        ("explain", (f"bundle={run}", f"input={root}", "method=guess"), "method=guess"),
    ):
        done = command(workplace, name, *words, *(("tracking=none",) if name == "audit" else ()))
        assert done.returncode == 2, (words, done.stdout, done.stderr)
        assert done.stderr.startswith(f"error: {said}"), done.stderr
        assert done.stderr.count("\n") == 1
