"""Export a bundle: bundle -> images to check it on -> file -> the same predictions, or nothing is left.

``register`` puts the model of its run into MLflow's registry.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from cxrnet.cli.run_folder import shown
from cxrnet.core import console
from cxrnet.core.atomic import write_json, write_text
from cxrnet.core.config import plain_config
from cxrnet.data.images.store import load_images
from cxrnet.data.inputs import opened_input
from cxrnet.data.manifest import digest, read_manifest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.confidence_intervals import clusters_of
from cxrnet.evaluation.metrics import evaluate_resampled
from cxrnet.evaluation.predictions import make_predictions, softmax
from cxrnet.inference import predict_images
from cxrnet.models.bundle import Bundle, device_of, load_bundle
from cxrnet.models.exported import Probabilities, read_onnx, read_program, write_int8, write_onnx, write_program
from cxrnet.tracking.record import read_record, register_model
from cxrnet.tracking.store import tracking_uri
from cxrnet.workflows.bundle_source import BundleSource, find_bundle

FILES = {"onnx": "model.onnx", "onnx_int8": "model.int8.onnx", "torch_export": "model.pt2"}
NOTICE = "Research use only. This is no medical device."
TOLERANCE = 1e-4  # of a probability
_CALIBRATED = 100  # training images that the ranges of eight bits are taken of
_BATCHES = 32
_RESAMPLES = 1000


def export(config: DictConfig) -> None:
    """Write a bundle in another format, checked on images, and register it where that is asked for.

    Raises:
        CxrnetError: a mistake in the configuration, no images to check it on, or it doesn't predict the same.
    """
    plain = plain_config(config)
    if plain["format"] is None and plain["register"] is None:
        raise CxrnetError("format: nothing to do; give format=<format> or register=<name>")
    with TemporaryDirectory() as scratch:
        source = find_bundle(plain["bundle"], Path(scratch), outputs=plain["outputs"])
        bundle = load_bundle(source.folder)
        console.heading("Export")
        if (form := plain["format"]) is not None:
            output = _free(Path(plain["output"] or f"exported/{form}"))
            partial = output.with_name(output.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            try:
                hub = form == "huggingface"
                facts = _hub(bundle, source, partial) if hub else _graph(bundle, source, partial, plain)
                partial.rename(output)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            for name, text in facts.items():
                console.say(name, text)
            console.say("written", str(shown(output)))
        if plain["register"] is not None:
            _register(source, plain)


def _free(folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CxrnetError(f"output: '{folder}' is there already; give another folder or remove it")
    if folder.exists():
        folder.rmdir()
    return folder


def _graph(bundle: Bundle, source: BundleSource, folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Write the graph and what belongs to it, and check it; return what to say."""
    form = config["format"]
    rows, images = _checked_on(bundle, source, config["images"], config["count"])
    file, facts = folder / FILES[form], describe(bundle)
    if form == "onnx_int8":
        write_int8(bundle, _of_training(bundle, source), file, facts)
        made = read_onnx(file)
    elif form == "onnx":
        write_onnx(bundle, file, facts)
        made = read_onnx(file)
    else:
        write_program(bundle, file, facts)
        made = read_program(file)
    expected = softmax(predict_images(bundle, images, _BATCHES, device_of("cpu")))
    found = _predict(made, images[:])
    said = {"images": f"{len(images)}, on which it was checked"}
    if form == "onnx_int8":
        said["eight bits"] = _loss(bundle, rows, expected, found)
    else:
        said["check"] = _same(expected, found)
    write_json(folder / "model.json", {**facts, "checked": said})
    return said


def describe(bundle: Bundle) -> dict[str, Any]:
    """Say what a user of the graph must know besides it, as JSON has it."""
    return {
        "input": "images: (N, 1, height, width) uint8, grey, upright, white is 255",
        "output": "probabilities: (N, classes) float32, at the training prevalences",
        "classes": list(bundle.classes),
        "size": list(bundle.network.config.size),
        "resize": bundle.resize,
        "prior": bundle.prior,
        "operating_points": bundle.operating_points,
        "decision_weights": bundle.decision_weights,
        "defer_below": bundle.defer_below,
        "gate": "not in the graph: what is no chest X-ray gets a class too",
        "trained_on": bundle.manifest_digest,
        "backbone": bundle.network.config.backbone,
        "versions": bundle.versions,
        "notice": NOTICE,
    }


def _checked_on(bundle: Bundle, source: BundleSource, folder: str | None, count: int) -> tuple[pd.DataFrame, Any]:
    """Read the images that the graph is checked on: those given, else test images of the run, then others."""
    size = bundle.network.config.size
    if folder is not None:
        with opened_input(folder) as found:
            return load_images(found.manifest.head(count), size, bundle.resize, "fail")
    manifest = own_manifest(bundle, source)
    if manifest is None:
        raise CxrnetError("images: the run's images don't lie beside the bundle; give images=<folder> to check it on")
    order = manifest["split"].map({"test": 0, "val": 1}).fillna(2).sample(frac=1, random_state=0)
    rows = manifest.loc[order.sort_values(kind="stable").index[:count]].sort_values("image_id", ignore_index=True)
    return load_images(rows, size, bundle.resize, "skip")


def own_manifest(bundle: Bundle, source: BundleSource) -> pd.DataFrame | None:
    """Read the manifest of the run that made a bundle; ``None`` where it doesn't lie beside it."""
    file = source.run / "manifest.parquet"
    manifest = read_manifest(file) if file.is_file() else None
    return manifest if manifest is not None and digest(manifest) == bundle.manifest_digest else None


def _of_training(bundle: Bundle, source: BundleSource) -> np.ndarray:
    """Read training images, ``(N, 1, H, W)``; never test images, which state the loss."""
    manifest = own_manifest(bundle, source)
    if manifest is None:
        raise CxrnetError(
            "format: onnx_int8 takes its ranges from training images; keep the bundle in its run's folder"
        )
    train = manifest[manifest["split"] == "train"]
    rows = train.sample(min(len(train), _CALIBRATED), random_state=0).sort_values("image_id", ignore_index=True)
    return load_images(rows, bundle.network.config.size, bundle.resize, "skip")[1][:][:, None]


def _predict(made: Probabilities, images: np.ndarray) -> np.ndarray:
    starts = range(0, len(images), _BATCHES)
    return np.concatenate([made(images[at : at + _BATCHES, None]) for at in starts]).astype(np.float64)


def _same(expected: np.ndarray, found: np.ndarray) -> str:
    """Check that classes are the same and probabilities within the tolerance."""
    furthest = float(np.abs(expected - found).max())
    others = int((expected.argmax(axis=1) != found.argmax(axis=1)).sum())
    if furthest > TOLERANCE or others:
        raise CxrnetError(
            f"format: the exported model predicts otherwise ({others} of {len(expected)} images of another class, "
            f"probabilities up to {furthest:.2g} away); nothing was written"
        )
    return f"the same class for each, probabilities at most {furthest:.1g} away"


def _loss(bundle: Bundle, rows: pd.DataFrame, expected: np.ndarray, found: np.ndarray) -> str:
    """Say what eight bits cost on images whose label is known, with paired confidence intervals."""
    moved = f"probabilities at most {np.abs(expected - found).max():.2g} away"
    if rows["label"].isna().any():
        return f"{moved}; no labels are known, so the loss isn't"
    drawn, values = [], []
    for each in (expected, found):
        logits = np.log(np.maximum(each, 1e-12)).astype(np.float32)
        table = make_predictions(rows, bundle.classes, logits)
        metrics, estimates = evaluate_resampled(table, clusters_of(table), _RESAMPLES, 0)
        values.append(metrics)
        drawn.append(estimates)
    said = []
    for name in ("accuracy", "roc_auc_macro"):
        if (before := values[0][name]["value"]) is None or (after := values[1][name]["value"]) is None:
            continue
        low, high = np.nanpercentile(drawn[1]["", name] - drawn[0]["", name], [2.5, 97.5])
        said.append(
            f"{name} {before:.3f} to {after:.3f} (change {after - before:+.3f}, 95 % CI {low:+.3f} to {high:+.3f})"
        )
    return "; ".join([*said, moved])


def _hub(bundle: Bundle, source: BundleSource, folder: Path) -> dict[str, str]:
    """Write a folder for the Hugging Face hub: the bundle, a config and a card."""
    from huggingface_hub import ModelCard, ModelCardData

    for name in ("model.safetensors", "bundle.json"):
        shutil.copyfile(source.folder / name, folder / name)
    write_json(folder / "config.json", {"architectures": ["cxrnet"], "model_type": "cxrnet", **describe(bundle)})
    card = source.run / "MODEL_CARD.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else f"# {bundle.network.config.backbone}\n\n{NOTICE}\n"
    data = ModelCardData(
        library_name="cxrnet",
        pipeline_tag="image-classification",
        tags=["chest-x-ray", "radiology", "cxrnet", "research-use-only"],
    )
    use = [
        "from huggingface_hub import snapshot_download",
        "import cxrnet",
        "",
        'bundle = cxrnet.load_bundle(snapshot_download("<name>"))',
    ]
    code = "\n".join(use)
    content = f"---\n{data.to_yaml()}\n---\n\n{text}\n## Use\n\n```python\n{code}\n```\n\n{NOTICE}\n"
    write_text(folder / "README.md", str(ModelCard(content)))
    again = load_bundle(folder)
    rows = "its card is that of the run" if card.is_file() else "no card of its run lies beside the bundle"
    return {"check": f"it loads again, with {len(again.classes)} classes; {rows}"}


def _register(source: BundleSource, config: Mapping[str, Any]) -> None:
    run_id = source.run_id or read_record(source.run).get("run_id")
    if run_id is None:
        raise CxrnetError("register: the run of the bundle isn't known in MLflow; give a run that was tracked")
    uri = tracking_uri(None, Path(config["outputs"]))
    version = register_model(uri, str(run_id), config["register"], config["alias"])
    console.say("registered", f"models:/{config['register']}@{config['alias']}, version {version}")
