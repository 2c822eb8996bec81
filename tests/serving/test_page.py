"""The page for a reader, in Chromium, against the server as it is started."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from cxrnet.data.images.store import load_images
from cxrnet.data.manifest import digest, write_manifest
from cxrnet.data.sources.phantom import phantom
from cxrnet.inference import featurer
from cxrnet.models.bundle import Bundle, save_bundle
from cxrnet.models.gate import fit_gate
from cxrnet.models.network import Network
from cxrnet.models.settings import NetworkConfig

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TOKEN = "0123456789abcdef"
CLASSES = ("COVID-19", "Lung Opacity", "Normal", "Viral Pneumonia")
PHOTOGRAPH = Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("CXRNET_REQUIRE_CHROMIUM") != "1", reason="needs Chromium"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a run on phantoms: a bundle with a gate, its manifest and its test result."""
    place = tmp_path_factory.mktemp("page")
    manifest = phantom(place / "data", 120, 64, 1).assign(split="train")
    manifest, images = load_images(manifest, (64, 64), "stretch", "fail")
    torch.manual_seed(0)
    network = Network(NetworkConfig(backbone="custom_cnn", classes=CLASSES, size=(64, 64))).eval()
    bundle = Bundle(network, "stretch", 1.0, {"COVID-19": 0.2}, digest(manifest), {}, {})
    labels = np.array([CLASSES.index(label) for label in manifest["label"]])
    features = featurer(bundle, 32, torch.device("cpu"))(images)
    gate = fit_gate(features, np.arange(len(images)), labels, images[:])
    save_bundle(
        Bundle(network, "stretch", 1.0, {"COVID-19": 0.2}, digest(manifest), {}, {}, gate=gate),
        place / "run" / "bundle",
    )
    write_manifest(manifest, place / "run" / "manifest.parquet")
    metric = {"value": 0.9, "interval": [0.8, 0.95], "n": 40}
    of_class = {"sensitivity": metric, "specificity": {**metric, "n": 80}}
    tested = {"accuracy": metric, "per_class": dict.fromkeys(CLASSES, of_class)}
    (place / "run" / "metrics.json").write_text(json.dumps({"test": tested}), encoding="utf-8")
    return place / "run"


@pytest.fixture(scope="module")
def phantoms(run) -> list[Path]:
    return sorted(run.parent.glob("data/*/images/*/*.png"))


@pytest.fixture(scope="module")
def serve(run) -> Iterator:
    running = []

    def start(*words: str) -> str:
        command = [sys.executable, "-m", "cxrnet.serve", f"bundle={run}", "port=0", *words]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        return next(found[0] for line in running[-1].stdout if (found := re.search(r"http://\S+", line)))

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def address(serve) -> str:
    return serve()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address) -> Iterator[Page]:
    """The page in a window of its own; nothing may be asked of the network, nothing go wrong in its script."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith((address, "data:", "blob:")) else wrong.append(request.url),
    )
    page.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
    page.goto(address)
    yield page
    context.close()
    assert not wrong


def opened(page: Page, *files: Path) -> None:
    page.get_by_label("Drop images or DICOM files").set_input_files(files)
    expect(page.locator("#status")).to_contain_text("read.", timeout=20_000)


def test_one_image_its_class_map_and_worth(page, phantoms):
    expect(page.get_by_text("Research use only")).to_be_in_viewport()
    opened(page, phantoms[0])
    said = page.locator("#said").inner_text()
    assert said in CLASSES
    bars = page.locator("dd progress")
    expect(bars).to_have_count(4)
    assert sum(float(bar.get_attribute("value")) for bar in bars.all()) == pytest.approx(1, abs=1e-4)
    expect(page.locator("#worth")).to_contain_text(f"sensitivity for {said} 0.900 (95 % CI 0.800 to 0.950) of 40")
    expect(page.locator("#map-note")).to_contain_text(f"what speaks for {said}")
    shown = page.evaluate(
        "[document.getElementById('picture').naturalWidth, document.getElementById('map').naturalWidth]"
    )
    assert shown == [256, 64]
    cases = page.locator("#cases li")
    expect(cases).to_have_count(5)
    assert phantoms[0].parent.name in cases.nth(0).inner_text()  # itself
    assert "cosine 1.00" in cases.nth(0).inner_text()
    assert cases.nth(0).locator("img").evaluate("image => image.naturalWidth") == 64
    page.get_by_label("Heat map").fill("60")
    assert page.evaluate("getComputedStyle(document.getElementById('map')).opacity") == "0.6"
    page.get_by_label("Window").fill("200")
    assert "contrast(2)" in page.evaluate("document.getElementById('picture').style.filter")
    page.get_by_label("Zoom").fill("300")
    viewer = "document.getElementById('viewer')"
    assert page.evaluate(f"{viewer}.scrollWidth > 2 * {viewer}.clientWidth")
    page.get_by_label("Map of").select_option("Normal")
    expect(page.locator("#map-note")).to_contain_text("what speaks for Normal")


def test_the_prevalence_moves_predictive_values_as_they_are_computed(page, phantoms):
    opened(page, phantoms[0])
    worth = page.locator("#worth")
    for step, share in (("-20", 0.01), ("-3", 0.5012)):
        page.locator("#prevalence").fill(step)
        ppv = 0.9 * share / (0.9 * share + 0.1 * (1 - share))
        expect(worth).to_contain_text(f"PPV {ppv:.3f}")


def test_a_photograph_is_turned_away_and_what_is_no_image_said(page, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    opened(page, PHOTOGRAPH)
    expect(page.locator("#said")).to_have_text("This picture does not look like a frontal chest radiograph.")
    expect(page.locator("dd progress")).to_have_count(0)
    opened(page, broken)
    assert "'broken.png' is not an image" in page.locator("#rows").inner_text()


def test_a_worklist_of_twenty_is_sorted_filtered_and_downloaded(page, phantoms):
    opened(page, *phantoms[:19], PHOTOGRAPH)
    rows = page.locator("#rows tr")
    expect(rows).to_have_count(20)
    page.get_by_label("Most urgent first").select_option("Viral Pneumonia")
    shares = [float(text.rstrip(" %")) for text in page.locator("#rows td:nth-child(3)").all_inner_texts() if text]
    assert len(shares) == 19
    assert shares == sorted(shares, reverse=True)
    assert "turned away" in rows.nth(19).inner_text()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    table = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8-sig"))))
    assert [row["reading"] for row in table][-1] == "turned away"
    assert [float(row["prob_Viral Pneumonia"]) * 100 for row in table[:19]] == pytest.approx(shares, abs=0.06)
    page.get_by_label("Show").select_option("turned away")
    expect(rows).to_have_count(1)


def test_by_keyboard_alone(page, phantoms):
    opened(page, *phantoms[:3])
    page.locator("#files").focus()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        if reached[-1] == "prevalence":
            break
    assert {"urgent", "filter", "csv", "map-label", "opacity", "level", "window", "zoom", "prevalence"} <= set(reached)
    before = page.locator("#worth").inner_text()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#worth")).not_to_have_text(before)
    last = page.locator("#rows button").nth(2)
    last.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#rows tr").nth(2)).to_have_attribute("aria-current", "true")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_for_who_sees_little_and_none_too_wide_for_a_phone(page, phantoms, scheme):
    page.emulate_media(color_scheme=scheme)
    opened(page, *phantoms[:2], PHOTOGRAPH)
    for width in (1200, 390):
        page.set_viewport_size({"width": width, "height": 800})
        found = Axe().run(page).response["violations"]
        assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_with_a_token_it_asks_for_it(browser, serve, phantoms):
    page = browser.new_page()
    page.goto(serve(f"token={TOKEN}"))
    page.get_by_label("Token of the server").fill(TOKEN)
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#model")).to_contain_text("custom_cnn")
    opened(page, phantoms[0])
    expect(page.locator("#map-note")).to_contain_text("what speaks for")
    page.close()
