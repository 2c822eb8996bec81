"""Predict images with a bundle.

bundle -> images and their labels -> predictions, line by line -> how right they are
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cxrnet.core.config import plain_config
from cxrnet.core.console import nobody_reads, stdout_lost
from cxrnet.core.machine import check_writable
from cxrnet.core.spreadsheet import to_csv
from cxrnet.data.images.decode import ImageError, read_image
from cxrnet.data.inputs import Input, labels_of, opened_input
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.decision import Mix, read_mix
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import (
    DEFERRED,
    INVERTED,
    SUFFIXES,
    TURNED_AWAY,
    classes_of,
    counts_of,
    growing_file,
    json_lines,
    logits_of,
    softmax,
)
from cxrnet.inference import mix_facts, predict_manifest
from cxrnet.models.bundle import Bundle, device_of, load_bundle
from cxrnet.reporting.text import REPORT, class_reports
from cxrnet.reporting.wording import NO_GATE, gate_reading, operating_sentences, triage_reading
from cxrnet.workflows.bundle_source import find_bundle, tested_metrics

TRIAGE = "triage"  # column: the reading at the operating points, in words
INCOMPLETE = 1  # exit status where some images gave no prediction


def predict(config: DictConfig) -> None:
    """Print, and on request write, one line an image; then, where labels are known, how right the predictions are.

    The lines stand on stdout; everything else that is said, on stderr.

    Raises:
        CxrnetError: a mistake in the configuration or the images, or the lines can't be written.
        SystemExit: some images gave no prediction.
    """
    plain = plain_config(config)
    check_output(plain["output"], plain["format"])
    with TemporaryDirectory() as scratch:
        source = find_bundle(plain["bundle"], Path(scratch), outputs=plain["outputs"])
        bundle = load_bundle(source.folder)
        device, mix = device_of(plain["device"]), read_mix(plain["prior"], bundle.prior)
        tested = tested_metrics(source, bundle)
    with opened_input(plain["input"]) as found:
        labels, origin = labels_of(found.manifest, bundle.classes, plain["labels"])
        manifest = found.manifest.assign(label=labels)
        facts = mix_facts(bundle, mix) | ({"gate": NO_GATE} if plain["gate"] and bundle.gate is None else {})
        facts |= operating_sentences(bundle.operating_points, tested)
        if labels.notna().any():
            facts["labels"] = f"of {labels.notna().sum()} of {len(labels)} images, from {origin}"
        tables = predict_manifest(bundle, manifest, plain["batch_size"], device, plain["on_error"], mix, plain["gate"])
        read = (_with_triage(found.shown(table), bundle, mix) for table in tables)
        predictions = _write(read, plain, facts, len(manifest))
        left = []
        if not nobody_reads() or plain["output"] is not None:  # else it has stopped in the middle
            _say_metrics(predictions)
            left = _unreadable(found, predictions)
    if left:
        print(f"no prediction for {len(left)} of {len(manifest)} files:", *left, sep="\n  ", file=sys.stderr)
    if (lost := stdout_lost()) is not None and not nobody_reads():
        raise CxrnetError(f"stdout: what was to be printed can't be written ({lost.strerror}); give output=<file>")
    if left:
        raise SystemExit(INCOMPLETE)


def check_output(path: str | None, form: str) -> None:
    """Check that predictions can be written, before any are made.

    Raises:
        CxrnetError: the file has another ending, can't be written, or the form can't be printed.
    """
    if path is None:
        if form == "parquet":
            raise CxrnetError("format: parquet can't be printed; give output=<file>.parquet")
        return
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise CxrnetError(f"output: '{path}' ends in none of {', '.join(SUFFIXES)}; give one of them")
    if form != "table" and file.suffix.removeprefix(".") not in (form, f"{form}l"):
        raise CxrnetError(f"output: '{path}' is no {form}; leave format out, its ending decides")
    if not file.resolve().parent.is_dir():
        raise CxrnetError(f"output: the folder of '{path}' doesn't exist; make it first")
    if file.is_dir():
        raise CxrnetError(f"output: '{path}' is a folder; give another name")
    check_writable(file.resolve().parent, "output")


def _with_triage(table: pd.DataFrame, bundle: Bundle, mix: Mix) -> pd.DataFrame:
    """Add how each image reads at the operating points, which are of the training prevalences."""
    if not bundle.operating_points:
        return table
    at_training = softmax((logits_of(table) - mix.shift(bundle.classes)).astype(np.float32))
    rows = [dict(zip(bundle.classes, each, strict=True)) for each in at_training.tolist()]
    read = pd.Series([triage_reading(each, bundle.operating_points) for each in rows], table.index, dtype="string")
    return table.assign(**{TRIAGE: read.where(table["predicted"].notna())})


def _write(
    tables: Iterator[pd.DataFrame], config: Mapping[str, Any], facts: Mapping[str, str], count: int
) -> pd.DataFrame:
    """Write tables as they come, and return them."""
    line = _FORMS[config["format"]]
    kept: list[pd.DataFrame] = []
    output = config["output"]
    with growing_file(Path(output)) if output is not None else nullcontext() as add, _bar(count) as advance:
        for table in tables:
            if not kept:  # once, after what is refused is refused
                for name, text in facts.items():
                    print(f"{name}: {text}", file=sys.stderr)
            kept.append(table)
            if output is None or config["format"] == "table":
                line(table, len(kept) == 1)
            if add is not None:
                add(table)
            elif nobody_reads():
                break
            advance(len(table))
    return pd.concat(kept, ignore_index=True)


def _print_lines(table: pd.DataFrame, _: bool) -> None:
    for image in table.to_dict("records"):
        if image.get(TURNED_AWAY):
            print(image["path"], gate_reading(image[INVERTED]), sep="\t")
            continue
        probability = f"{image['prob_' + image['predicted']]:.4f}"
        deferred = [DEFERRED] if image.get(DEFERRED) else []
        triage = [image[TRIAGE]] if TRIAGE in image else []
        print(image["path"], image["predicted"], probability, *deferred, *triage, sep="\t")


def _print_csv(table: pd.DataFrame, first: bool) -> None:
    print(to_csv(table, header=first), end="")


def _print_json(table: pd.DataFrame, _: bool) -> None:
    print("".join(json_lines(table)), end="")


_FORMS: dict[str, Callable[[pd.DataFrame, bool], None]] = {
    "table": _print_lines,
    "csv": _print_csv,
    "json": _print_json,
    "parquet": _print_lines,
}


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr where that is a terminal, and nothing elsewhere; what is printed goes on above it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, console=console, redirect_stdout=sys.stdout.isatty()) as progress:
        task = progress.add_task("predicting", total=total)
        yield lambda steps: progress.advance(task, steps)


def _say_metrics(predictions: pd.DataFrame) -> None:
    """Print the confusion matrix and the metrics of each class, over the images whose label is known."""
    known = predictions[predictions["label"].notna() & predictions["predicted"].notna()].reset_index(drop=True)
    if away := int(predictions["predicted"].isna().sum()):
        print(f"turned away: {away} of {len(predictions)} images, of which no class is told", file=sys.stderr)
    if known.empty:
        return
    classes = classes_of(known)
    counts = pd.DataFrame(counts_of(known), pd.Index(classes, name="label"), classes)
    metrics = evaluate(known.assign(split="input"), resamples=1000)
    print(f"\nlabel (rows) against prediction (columns)\n\n{counts}\n", file=sys.stderr)
    print(class_reports({"input": metrics}, REPORT), file=sys.stderr)
    for name in ("accuracy", "roc_auc_macro"):
        if "interval" in (metric := metrics[name]):
            low, high = metric["interval"]
            print(f"{name}: {metric['value']:.3f} (95 % CI {low:.3f} to {high:.3f})", file=sys.stderr)


def _unreadable(found: Input, predictions: pd.DataFrame) -> list[str]:
    """List the files that gave no prediction, with the reason."""
    rows = found.manifest[~found.manifest["image_id"].isin(predictions["image_id"])]
    lines = []
    for path, shown in zip(rows["path"], found.shown(rows)["path"], strict=True):
        try:
            read_image(Path(path).read_bytes(), shown)
            lines.append(f"'{shown}' can be read now; predict it again")
        except ImageError as error:
            lines.append(str(error))
        except OSError as error:
            lines.append(f"'{shown}' cannot be read ({error.strerror})")
    return lines
