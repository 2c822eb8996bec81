"""Fixtures of every test."""

import dataclasses
import html
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrnet.core.process import keep_freed_memory
from cxrnet.core.schema import register
from cxrnet.evaluation.calibration import Temperature
from cxrnet.evaluation.comparison import Comparison, ComparisonSettings, compare, moments_of
from cxrnet.evaluation.decision import DecisionRule
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.reporting.folds import spread_table
from cxrnet.reporting.plots.classification import save_curves, save_plots
from cxrnet.reporting.report import RepeatsFacts, ResultFacts, RunFacts, SplitFacts
from cxrnet.reporting.results import Results, analyse, save_analysis
from cxrnet.training.schedule import PhaseResult
from cxrnet.workflows.settings import COMMANDS

for command in COMMANDS:  # as their modules do
    register(command)
keep_freed_memory()  # as the commands do; it makes the tests that train faster
REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the integration tests first: their files take longest, and the last file should be a short one."""
    items.sort(key=lambda item: "integration" not in item.path.parts)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real X-rays and weights; tests that need it are skipped without it.

    CI sets CXRNET_REQUIRE_SHARED=1, which turns the skip into a failure.
    """
    folder = Path(os.environ.get("CXRNET_SHARED", REPOSITORY.parent / "shared"))
    if (folder / "data").is_dir() and (folder / "weights").is_dir():
        return folder
    message = f"no real X-rays at '{folder}': set CXRNET_SHARED to the folder that holds data/ and weights/"
    if os.environ.get("CXRNET_REQUIRE_SHARED") == "1":
        pytest.fail(message)
    pytest.skip(message)


def draw_xrays(
    root: Path, classes=("Covid", "Normal", "Viral Pneumonia"), images: int = 12, size=(48, 40), seed: int = 0
) -> Path:
    """Draw small grey images, a folder a class; the class shows in where a bright band lies."""
    rng = np.random.default_rng(seed)
    for place, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(images):
            blobs = Image.fromarray(rng.integers(0, 120, (7, 6), np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)
            image = np.asarray(blobs) + rng.integers(0, 40, size)
            band = size[1] * place // len(classes)
            image[:, band : band + size[1] // len(classes)] += 90
            Image.fromarray(image.astype(np.uint8)).save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def draw() -> Callable[..., Path]:
    """The function above, for tests, which can't import from here."""
    return draw_xrays


@pytest.fixture(scope="session")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twelve images in class folders; not to be changed."""
    return draw_xrays(tmp_path_factory.mktemp("data") / "small set")


@pytest.fixture
def make_data(xrays: Path) -> Callable:
    """Makes a data module of the small images, set up: 18 for training, 9 for validation, 9 for testing."""
    import torch

    from cxrnet.data.datamodule import XrayDataModule
    from cxrnet.data.sources.folder import folder
    from cxrnet.data.splits import split_manifest

    torch.set_num_threads(1)
    halves = {"train": 0.5, "val": 0.25, "test": 0.25}

    def make(**changes) -> XrayDataModule:
        settings = {
            "manifest": partial(folder, xrays),
            "split": partial(split_manifest, fractions=halves, seed=0),
            "size": (32, 32),
            "resize": "stretch",
            "augment": None,
            "batch_size": 8,
            "sampler": "shuffle",
            "num_workers": 0,
            "on_error": "fail",
            "seed": 0,
        }
        data = XrayDataModule(**{**settings, **changes})
        data.setup()
        return data

    return make


@pytest.fixture
def make_network() -> Callable:
    """Makes a small network; the same settings give the same weights."""
    import torch

    from cxrnet.models.network import Network
    from cxrnet.models.settings import NetworkConfig

    torch.set_num_threads(1)

    def make(**changes) -> Network:
        settings = {
            "backbone": "custom_cnn",
            "classes": ("Covid", "Normal", "Viral Pneumonia"),
            "size": (32, 32),
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "pool": "average",
            "pool_window": None,
            "hidden": (),
            "activation": "relu",
            "batch_norm": False,
            "dropout": 0.2,
            "l2": 0.0,
            "output": "softmax",
        }
        torch.manual_seed(0)
        return Network(NetworkConfig(**{**settings, **changes}))

    return make


@pytest.fixture
def bundle(make_network: Callable):
    """A bundle of that network for images of 40 x 32 pixels, which it pads."""
    from cxrnet.models.bundle import Bundle

    return Bundle(make_network(size=(40, 32)), "pad", 1.0, {}, "", {}, {})


@pytest.fixture
def gated() -> Callable:
    """Gives a bundle a gate, which lets grey noise in; and draws such images ``(n, H, W)``."""
    import torch

    from cxrnet.data.images.reader import Images
    from cxrnet.inference import featurer
    from cxrnet.models.gate import fit_gate

    def noise(bundle, count: int, seed: int) -> np.ndarray:
        shape = (count, *bundle.network.config.size)
        return np.random.default_rng(seed).normal(128, 20, shape).clip(0, 255).astype(np.uint8)

    def make(bundle):
        features = featurer(bundle, 32, torch.device("cpu"))(Images.all_of(noise(bundle, 120, 0)))
        return replace(bundle, gate=fit_gate(features, np.arange(120))), noise

    return make


@pytest.fixture
def own_manifest(xrays: Path) -> Callable:
    """Makes the manifest of the run that a bundle is of: which of the twelve images of a class are for training."""
    from cxrnet.data.images.store import load_images
    from cxrnet.data.sources.folder import folder

    def make(is_training: Callable[[int], bool]):
        table, _ = load_images(folder(xrays), (8, 8), "stretch", "fail")
        train = table["image_id"].map(lambda name: is_training(int(Path(name).stem)))
        return table.assign(split=train.map({True: "train", False: "test"}).astype("string"))

    return make


@pytest.fixture
def read_external(bundle) -> Callable:
    """Reads class folders as an external data set of the bundle: root, name, and its class by each label."""
    from cxrnet.data.external import SetConfig, read_set

    def call(root: Path, name: str = "north", on_error: str = "fail", key: str = "data", **labels: str | None):
        source = {"_target_": "cxrnet.data.sources.folder.folder", "_partial_": True, "root": str(root)}
        config = {"manifest": source, "on_error": on_error, "cache": None, "known_issues": {name: ["it is small"]}}
        return read_set(SetConfig(name, key, config, labels), bundle.classes, ((40, 32), "pad"))

    return call


# Not in the order of the alphabet: a function that sorts class names is found out.
CLASSES = ("Viral Pneumonia", "Covid", "Normal")


@pytest.fixture(scope="session")
def make_table() -> Callable[..., pd.DataFrame]:
    def make(
        n: int = 60,
        classes: Sequence[str] = CLASSES,
        seed: int = 0,
        labels: Sequence[str] | None = None,
        split: str = "test",
        strength: float = 1.0,
    ) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        names = list(labels) if labels is not None else [classes[i] for i in rng.integers(0, len(classes), n)]
        logits = rng.normal(size=(len(names), len(classes))).astype(np.float32)
        for row, name in enumerate(names):
            if name in classes:
                logits[row, classes.index(name)] += strength
        rows = pd.DataFrame(
            {
                "image_id": [f"{split}/{i:04d}.png" for i in range(len(names))],
                "path": "somewhere.png",
                "label": names,
                "split": split,
                "source": "invented",
                "patient_id": [f"{i // 2:03d}" for i in range(len(names))],
            }
        )
        return make_predictions(rows, classes, logits)

    return make


@pytest.fixture(scope="session")
def compare_runs() -> Callable[..., Comparison]:
    """Compares tables of predictions in a metric or several, by the first of them unless another is given."""

    def call(tables: Mapping[str, pd.DataFrame], *metrics: str, **changes: Any) -> Comparison:
        settings = {"also": [], "by": metrics[0], "resamples": 100, "seed": 0, "level": 0.95, "bins": 15}
        return compare(tables, ComparisonSettings(**{"metrics": metrics, **settings, **changes}))

    return call


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, to be copied: to make one takes seconds."""
    from cxrnet.tracking.store import opened

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    with opened(f"sqlite:///{file}"):
        return file


@pytest.fixture(scope="session")
def logged_files():
    """Lists the artifacts of an MLflow run, with their folders."""

    def listed(client, run_id: str, folder: str | None = None) -> set[str]:
        found = client.list_artifacts(run_id, folder)
        below = [listed(client, run_id, file.path) for file in found if file.is_dir]
        return {file.path for file in found if not file.is_dir}.union(*below)

    return listed


@pytest.fixture(scope="session")
def history() -> pd.DataFrame:
    epoch = np.arange(1, 10)
    table = {"phase": ["head"] * 5 + ["finetune"] * 4, "epoch": epoch}
    for split in ("train", "val"):
        table |= {f"{split}/loss": 1 / epoch, f"{split}/accuracy": 1 - 0.5 / epoch}
    return pd.DataFrame(table)


@pytest.fixture(scope="session")
def settings() -> dict[str, Any]:
    """The group ``evaluation`` of the configuration, with few resamples."""
    return {
        "resamples": 100,
        "level": 0.95,
        "seed": 0,
        "calibration": {"bins": 10, "kind": "equal_width"},
        "prevalences": [0.05, 0.2],
        "missed": 0.01,
        "decision_curve": {"thresholds": [0.0, 0.5], "prevalence": 0.05},
        "deferral": {"shares": [0.2]},
        "fewest": 20,
    }


@pytest.fixture(scope="session")
def facts(
    settings: dict[str, Any],
    make_table: Callable[..., pd.DataFrame],
    history: pd.DataFrame,
    tmp_path_factory: pytest.TempPathFactory,
) -> RunFacts:
    folder = tmp_path_factory.mktemp("plots")
    tables = {"val": make_table(seed=1, split="val", strength=4.0), "test": make_table(strength=4.0)}
    tables["test"]["view"] = pd.array(["PA", "AP"] * 30, dtype="string")
    metrics = {split: evaluate(table, resamples=100) for split, table in tables.items()}
    analyses = {split: analyse(table, metrics[split], settings, 1.5) for split, table in tables.items()}
    plots = save_curves(history, 7, folder)
    for split, suffix in (("test", ""), ("val", "_val")):
        plots |= save_plots(tables[split], metrics[split], folder, suffix) | save_analysis(
            analyses[split], folder, suffix
        )
    return RunFacts(
        title="MobileNetV2 on covid19_image",
        summary="A MobileNetV2 with ImageNet weights, trained on 200 chest radiographs.",
        created="3 March 2026, 10:15",
        warnings=["9 of 66 test images are duplicates of training images."],
        known_issues=["covid19_image: at least 22 Covid images have another finding where they come from."],
        classes=CLASSES,
        data={
            split: SplitFacts(images={"Covid": 1200, "Normal": 70, "Viral Pneumonia": 3}, patients=None)
            for split in ("train", "val", "test")
        },
        results=Results(
            metrics,
            analyses,
            baselines={"majority": evaluate(make_table(strength=0.0)), "thumbnail": evaluate(make_table())},
            without_leaked=evaluate(tables["test"].iloc[9:], resamples=100),
            plots=plots,
        ),
        rule=DecisionRule({"Covid": 0.375}),
        chosen_for={"Covid": "specificity >= 0.99"},
        chosen=["Covid is predicted from a probability of 0.375 on."],
        deferred_share=None,
        temperature=Temperature(1.5, 60, 0.6, 0.5, None),
        level=0.95,
        methods={
            "sources": "covid19_image",
            "preprocessing": "grey, 224 x 224 pixels",
            "selection": "all images of the manifest",
            "split": "split_manifest(seed=0)",
            "level": "of 66 test images, 9 have a duplicate in train or val and patients are not known",
            "characteristics": "",
            "initial weights": "mobilenet_v2.safetensors",
            "training": "Adam(weight_decay=0.0)",
            "final model": "the epoch with the best val/loss",
            "software": "torch 2.11",
        },
        phases=[
            PhaseResult("head", "head", 3843, 1e-2, 0, True, 1, 5, "best", 4, "val/loss", 0.2512, 24.3),
            PhaseResult("finetune", "last 100", 1863683, 1e-5, 0, False, 6, 4, "best", 7, "val/loss", 0.182, 192, True),
        ],
        environment={"Git revision": "a61342b" * 5, "Seed": "0", "Data digest": "9f" * 32},
        command="python -m cxrnet.train model=mobilenet_v2 +finetune=true " + "x" * 200,
        config_yaml="tracking:\n  uri: http://localhost:5000\n",
    )


@pytest.fixture(scope="session")
def repeats_facts(facts: RunFacts, make_table: Callable[..., pd.DataFrame]) -> RepeatsFacts:
    """A run of two seeds, made up too."""
    values = [evaluate(make_table(seed=seed, strength=2.0))["accuracy"]["value"] for seed in (0, 1)]
    moments = moments_of(pd.DataFrame({"accuracy": values}), 0.95)
    results = facts.results
    only_test = dataclasses.replace(
        results,
        metrics={"test": results.metrics["test"]},
        analyses={"test": results.analyses["test"]},
        plots={name: file for name, file in results.plots.items() if not name.endswith(("_val", "_curve"))},
    )
    shared = {field.name: getattr(facts, field.name) for field in dataclasses.fields(ResultFacts)}
    return RepeatsFacts(
        **{**shared, "results": only_test},
        meaning="All runs are tested on the same 60 images.",
        tables=[spread_table(moments, "Over runs", 0.95)],
        moments=moments,
        seeds={},
        points={"seed0": {"Covid": 0.4}, "seed1": {"Covid": 0.5}},
        deferral_thresholds={"seed0": None, "seed1": None},
    )


@pytest.fixture(scope="session")
def check_standalone() -> Callable[[str], None]:
    """Checks that a page loads nothing from anywhere."""

    def check(page: str) -> None:
        sources = re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']?([^"'>]*)""", page)
        assert all(source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for source in sources)
        assert not re.search(r"url\(|@import|<script|<link|<iframe", page)
        assert "default-src 'none'; img-src data:;" in page

    return check


@pytest.fixture
def phone(browser: Callable[..., str], tmp_path: Path) -> Callable[[str], str]:
    """Measure a page in a frame as wide as a phone: ``hidden 0 px, seen 3 of 3``, sideways and of its pictures."""

    def measure(page: str) -> str:
        # `srcdoc` lets the page around it measure.
        (tmp_path / "phone.html").write_text(
            f'<iframe style="width:390px;height:800px;border:0" srcdoc="{html.escape(page)}"></iframe><pre></pre>'
            "<script>onload = () => { const page = document.querySelector('iframe').contentDocument;"
            "const seen = [...page.images].filter(image => image.naturalWidth > 0).length;"
            "document.querySelector('pre').textContent ="
            "`hidden ${page.documentElement.scrollWidth - page.documentElement.clientWidth} px,"
            " seen ${seen} of ${page.images.length}` }</script>",
            encoding="utf-8",
        )
        return re.findall("<pre>(hidden .*?)</pre>", browser("--dump-dom", (tmp_path / "phone.html").as_uri()))[0]

    return measure


@pytest.fixture
def browser(tmp_path: Path) -> Callable[..., str]:
    """Headless Chromium with every host unreachable; takes arguments, returns what it prints."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None and os.environ.get("CXRNET_REQUIRE_CHROMIUM") == "1":
        pytest.fail("no chromium on this machine, and CXRNET_REQUIRE_CHROMIUM=1 forbids to skip")
    if program is None:
        pytest.skip("no chromium on this machine: pages are not opened in a browser (CI does)")
    flags = [
        "--headless",
        "--no-sandbox",  # a container's root cannot have the sandbox; the only page opened is our own
        "--disable-gpu",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--no-first-run",
        *(f"--disable-{name}" for name in ("quic", "background-networking", "component-update", "sync")),
        f"--user-data-dir={tmp_path / 'profile'}",
    ]

    def run(*arguments: str) -> str:
        done = subprocess.run([program, *flags, *arguments], capture_output=True, text=True, timeout=120, check=True)
        return done.stdout

    return run
