"""Measure what gates turn away: the tables of docs/gate.md.

    python scripts/gate_study.py <run> [<run> ...] [chestxray=<folder of the COVID-19 image data collection>]

Each run is a folder of ``python -m cxrnet.train``. For each, the gate of its bundle is asked of its own test images,
which it never saw, and of pictures that are no frontal chest radiographs: photographs (of scikit-image, scikit-learn
and matplotlib, and parts of them), drawings and plots, screenshots (headless Chromium), slices of CT and MR (test files
of pydicom, and those of the collection), noise as of ultrasound, other noise, blank pictures and gradients, the test
images as negatives and turned, and lateral views of the collection. Beside it stand other ways: Mahalanobis' distance
(Ledoit and Wolf's covariance of 256 directions), the fifth nearest neighbour by cosine, and the energy of the logits,
each with the threshold that leaves 1 % of the validation images out. It needs ``pip install scikit-image``.
"""

import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf

from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.reader import Images, resize
from cxrnet.data.images.store import load_images
from cxrnet.data.manifest import read_manifest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.confidence_intervals import wilson
from cxrnet.inference import featurer, judge
from cxrnet.models.bundle import Bundle, load_bundle

Array = npt.NDArray[np.float64]
Score = Callable[[Array], Array]
CPU = torch.device("cpu")
# fmt: off
_PHOTOS = (
    "astronaut", "camera", "chelsea", "coffee", "coins", "brick", "grass", "gravel", "motorcycle_left",
    "motorcycle_right", "ihc", "moon", "color", "cell", "clock_motion", "rocket", "retina", "hubble_deep_field",
    "china", "flower", "grace_hopper", "Minduka_Present_Blue_Pack",
)
_SLICES = (
    "CT_small", "MR_small", "JPEG2000", "693_J2KI", "JPEGLSNearLossless_16", "MR_small_jp2klossless", "liver_1frame",
    "JPGExtended",
)
# fmt: on


def folder_of(package: str, *parts: str) -> Path:
    """Find a folder of an installed package."""
    found = find_spec(package)
    if found is None or found.origin is None:
        raise CxrnetError(f"{package} is not installed; pip install scikit-image scikit-learn matplotlib pydicom")
    return Path(found.origin).parent.joinpath(*parts)


def grey(file: Path | io.BytesIO) -> UInt8Array:
    """Read a picture as grey levels."""
    return np.asarray(Image.open(file).convert("L"))


def photographs(rng: np.random.Generator) -> list[UInt8Array]:
    """Return 22 photographs and 78 parts of them."""
    places = [
        folder_of("skimage", "data"),
        folder_of("sklearn", "datasets", "images"),
        folder_of("matplotlib", "mpl-data", "sample_data"),
    ]
    files = {path.stem: path for place in places for path in place.iterdir() if path.suffix in (".png", ".jpg")}
    whole = [grey(files[name]) for name in _PHOTOS]
    parts = []
    for number in range(100 - len(whole)):
        image = whole[number % len(whole)]
        height, width = (max(32, int(side * rng.uniform(0.5, 1))) for side in image.shape)
        top, left = rng.integers(0, [image.shape[0] - height + 1, image.shape[1] - width + 1]).tolist()
        parts.append(image[top : top + height, left : left + width])
    return whole + parts


def drawings(rng: np.random.Generator) -> list[UInt8Array]:
    """Draw 60 plots, and add three drawings of scikit-image."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    drawn = []
    for number in range(60):
        figure, axes = plt.subplots(figsize=(4, 3 + number % 2))
        match number % 4:
            case 0:
                axes.plot(rng.normal(size=(50, 3)).cumsum(0))
            case 1:
                axes.bar(range(8), rng.random(8))
            case 2:
                axes.imshow(rng.normal(size=(20, 20)).cumsum(0).cumsum(1), cmap="gray")
            case _:
                x, y = rng.normal(size=(2, 200))
                axes.scatter(x, y, s=float(rng.uniform(5, 80)))
                axes.axis("off")
        file = io.BytesIO()
        figure.savefig(file, dpi=70)
        plt.close(figure)
        drawn.append(grey(file))
    return drawn + [grey(folder_of("skimage", "data", f"{name}.png")) for name in ("horse", "logo", "chessboard_GRAY")]


def screenshots(rng: np.random.Generator) -> list[UInt8Array]:
    """Take 24 pictures of pages in Chromium, and two of scikit-image's."""
    taken = [grey(folder_of("skimage", "data", f"{name}.png")) for name in ("page", "text")]
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise CxrnetError("screenshots need Chromium; install it")
    words = (__doc__ or "").replace("<", "").split()
    with tempfile.TemporaryDirectory() as place:
        for number in range(24):
            style = "background:#111;color:#ddd" if number % 2 else "background:#fff"
            rows = "".join(
                f"<tr>{''.join(f'<td>{rng.integers(10_000)}</td>' for _ in range(6))}</tr>" for _ in range(8)
            )
            text = "".join(f"<p>{' '.join(rng.choice(words, 60))}</p>" for _ in range(6))
            page = f"<body style='font-family:sans-serif;{style}'><h1>{words[number]}</h1><button>OK</button>"
            html = f"{page}<table border=1>{rows}</table>{text}</body>"
            (Path(place) / "page.html").write_text(html, encoding="utf-8")
            size = f"--window-size={600 + 30 * number},{500 + 20 * number}"
            call = [browser, "--headless", "--no-sandbox", "--disable-gpu", size, "--screenshot=page.png", "page.html"]
            subprocess.run(call, cwd=place, check=True, capture_output=True)
            taken.append(grey(Path(place) / "page.png"))
    return taken


def slices(rng: np.random.Generator, collection: Path | None) -> list[UInt8Array]:
    """Read slices of CT and MR, and turn and stretch them a little, 61 in all."""
    import pydicom

    found = [grey(folder_of("skimage", "data", "phantom.png"))]
    for name in _SLICES:
        pixels = pydicom.dcmread(folder_of("pydicom", "data", "test_files", f"{name}.dcm"), force=True).pixel_array
        low, high = np.percentile(pixels, [1, 99])
        found.append((np.clip((pixels - low) / (high - low), 0, 1) * 255).astype(np.uint8))
    found += of_collection(collection, lambda rows: rows["modality"] == "CT")
    for number in range(61 - len(found)):
        image = Image.fromarray(found[number])
        size = int(image.width * rng.uniform(0.9, 1.1)), image.height
        found.append(np.asarray(image.rotate(float(rng.uniform(-15, 15))).resize(size)))
    return found


def of_collection(folder: Path | None, chosen: Callable[[pd.DataFrame], pd.Series]) -> list[UInt8Array]:
    """Read images of the COVID-19 image data collection, as far as they are there."""
    if folder is None:
        return []
    rows = pd.read_csv(folder / "metadata.csv")
    files = [folder / "images" / str(name) for name in rows[chosen(rows)]["filename"]]
    return [grey(file) for file in files if file.is_file()]


def ultrasound(rng: np.random.Generator) -> list[UInt8Array]:
    """Draw 40 fans of speckle."""
    y, x = np.mgrid[:256, :256]
    radius, angle = np.hypot(y + 20, x - 128), np.arctan2(x - 128, y + 20)
    drawn = []
    for _ in range(40):
        speckle = np.abs(gaussian_filter(rng.normal(size=(256, 256)), (1, float(rng.uniform(1, 4)))))
        speckle += 0.3 * gaussian_filter(rng.random((256, 256)), 15)
        fan = (np.abs(angle) < rng.uniform(0.5, 0.8)) & (radius > 40) & (radius < rng.uniform(200, 270))
        drawn.append((np.clip(1.6 * speckle / speckle.max(), 0, 1) * fan * 255).astype(np.uint8))
    return drawn


def noise(rng: np.random.Generator) -> list[UInt8Array]:
    """Draw 40 pictures of noise, white and smooth."""
    drawn = []
    for number in range(40):
        values = gaussian_filter(rng.normal(size=(224, 224)), (0, 1, 4, 20)[number % 4])
        drawn.append(((values - values.min()) / np.ptp(values) * 255).astype(np.uint8))
    return drawn


def blank(_: np.random.Generator) -> list[UInt8Array]:
    """Draw 10 grey levels, 20 gradients and 10 spots of light."""
    y, x = np.mgrid[:224, :224]
    drawn = [np.full((224, 224), level, np.uint8) for level in (0, 20, 64, 100, 128, 150, 180, 200, 230, 255)]
    for number in range(20):
        values = np.cos(number) * x + np.sin(number) * y
        drawn.append(((values - values.min()) / np.ptp(values) * (60 + 9 * number)).astype(np.uint8))
    squares = (x - 112) ** 2 + (y - 112) ** 2
    return drawn + [(255 * np.exp(-squares / (2 * (30 + 8 * k) ** 2))).astype(np.uint8) for k in range(10)]


def others(features: Array) -> dict[str, Score]:
    """Fit the other ways to features of training images; each takes features and logits side by side."""
    mean = features.mean(axis=0)
    directions = np.linalg.svd(features - mean, full_matrices=False)[2][:256]
    covariance = LedoitWolf().fit((features - mean) @ directions.T)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    width = features.shape[1]

    def mahalanobis(both: Array) -> Array:
        centred = (both[:, :width] - mean) @ directions.T - covariance.location_
        return np.asarray(np.einsum("ij,jk,ik->i", centred, covariance.precision_, centred))

    def fifth(both: Array) -> Array:
        own = both[:, :width] / np.maximum(np.linalg.norm(both[:, :width], axis=1, keepdims=True), 1e-9)
        return np.asarray(1 - np.sort(own @ unit.T, axis=1)[:, -5])

    def energy(both: Array) -> Array:
        return np.asarray(-logsumexp(both[:, width:], axis=1))

    return {"Mahalanobis": mahalanobis, "fifth nearest": fifth, "energy": energy}


def pictures(run: Path, bundle: Bundle, collection: Path | None) -> dict[str, UInt8Array]:
    """Read images of each kind at the size of a bundle, first those of the run by split."""
    size, rng = bundle.network.config.size, np.random.default_rng(0)
    manifest, images = load_images(read_manifest(run / "manifest.parquet"), size, bundle.resize, "skip")
    parts = {split: images[np.flatnonzero(manifest["split"] == split)] for split in ("train", "val", "test")}
    kinds = {each.__name__: each(rng) for each in (photographs, drawings, screenshots)}
    kinds["CT and MR"] = slices(rng, collection)
    kinds |= {each.__name__: each(rng) for each in (ultrasound, noise, blank)}
    kinds["lateral views"] = of_collection(collection, lambda rows: rows["modality"].eq("X-ray") & rows["view"].eq("L"))
    resized = {name: [resize(image, size, bundle.resize) for image in each] for name, each in kinds.items()}
    named = {name: np.stack(each) for name, each in resized.items() if each}
    test = parts["test"]
    turned = {"negatives": 255 - test, "upside down": test[:, ::-1, ::-1].copy()}
    return {**parts, **named, **turned, "a quarter turned": np.rot90(test, 1, (1, 2)).copy()}


def main() -> None:
    """Print a table for each run."""
    words = sys.argv[1:]
    if not words or {"--help", "-h"} & set(words):
        print(__doc__)
        return
    given = next((word.partition("=")[2] for word in words if word.startswith("chestxray=")), None)
    for run in (Path(word) for word in words if "=" not in word):
        bundle = load_bundle(run / "bundle")
        if bundle.gate is None:
            raise CxrnetError(f"'{run}': its bundle has no gate")
        kinds = pictures(run, bundle, Path(given) if given else None)
        compute, features = judge(bundle, 32, CPU), featurer(bundle, 32, CPU)
        judged = {name: compute(Images.all_of(images)) for name, images in kinds.items()}
        both = {
            name: np.concatenate([features(Images.all_of(images)), judged[name].logits], axis=1).astype(np.float64)
            for name, images in kinds.items()
        }
        split = -judged["train"].logits.shape[1]
        ways = others(both["train"][:1000, :split])
        limits = {name: np.quantile(score(both["val"]), 0.99) for name, score in ways.items()}
        print(f"\n{run.name}: {len(kinds['train'])} training, {len(kinds['val'])} validation images\n")
        print(f"| turned away | images | the gate (95 % CI) | {' | '.join(ways)} |\n|---|---|---|{'---|' * len(ways)}")
        for name in list(kinds)[2:]:
            away = judged[name].turned_away
            low, high = wilson(int(away.sum()), len(away), 0.95)
            shares = [f"{(score(both[name]) > limits[way]).mean():.2f}" for way, score in ways.items()]
            print(f"| {name} | {len(away)} | {away.mean():.3f} ({low:.2f} to {high:.2f}) | {' | '.join(shares)} |")
        said = judged["negatives"].inverted.sum()
        print(f"\nof the negatives {said} of {len(kinds['negatives'])} are called inverted", flush=True)


if __name__ == "__main__":
    main()
