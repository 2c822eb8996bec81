"""The words of a training run on the console, step by step."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from cxrnet.cli.run_folder import say_places, shown
from cxrnet.core import console
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.leaks import patients_text
from cxrnet.evaluation.over_runs import SUMMARY
from cxrnet.inference import rule_of
from cxrnet.models.backbones.weights import LoadedWeights
from cxrnet.models.network import Network, count_parameters
from cxrnet.reporting.report_data import PhaseFacts
from cxrnet.reporting.results import Results
from cxrnet.reporting.sentences import USELESS, offset_text
from cxrnet.reporting.training_run import SPLITS, Bundled, sources_of
from cxrnet.reporting.wording import HEADLINE, duration, metric_text, number_text


def say_data(data: XrayDataModule, warnings: Sequence[str]) -> None:
    """Say what is trained on."""
    console.say("images", f"{len(data.manifest)} from {sources_of(data)}, {data.size[0]} x {data.size[1]} pixels")
    for split in SPLITS:
        counts = ", ".join(f"{name} {n}" for name, n in zip(data.classes, data.counts(split), strict=True))
        console.say(split, f"{len(data.rows(split))} images: {counts}")
    if (n := len(data.rows("train"))) % data.batch_size == 1 and data.batch_size > 1:
        left_out = f"one of the {n} training images is left out, each time another: a last batch of one has no variance"
        console.say("every epoch", left_out)
    console.say("patients", patients_text(data.manifest))
    for text in warnings:
        console.warn(text)


def say_model(network: Network, weights: LoadedWeights) -> None:
    """Say which network is trained, and from which weights."""
    console.say("network", f"{network.config.backbone}, {count_parameters(network).total:,} parameters")
    if network.config.output == "sigmoid":
        console.say("output", f"one sigmoid: the probability of {network.config.classes[-1]}")
    random = "random, nothing is frozen" if weights.fallback else f"random: {weights.detail}"
    console.say("weights", weights.detail if weights.pretrained else random)
    if weights.unused:
        console.say("not used", ", ".join(weights.unused))


def say_views(data: XrayDataModule, views: int, trainable: Collection[object]) -> None:
    """Say so where an augmentation is not used in a phase, as the head trains on the images themselves."""
    if data.augment is not None and views == 1 and "head" in trainable:
        console.say(
            "augmentation", "not on the frozen backbone: its head trains on the images themselves (schedule.views=1)"
        )


def say_phase(facts: PhaseFacts) -> None:
    """Say how a phase ended."""
    cached = " on features computed once" if facts.cached else ""
    epochs = "1 epoch" if facts.epochs == 1 else f"{facts.epochs} epochs"
    kept = ", which is the result" if facts.kept else ""
    console.say(
        facts.name,
        f"{facts.parameters:,} parameters{cached}, {epochs} in {duration(facts.seconds)}; "
        f"{facts.keep} epoch {facts.kept_epoch}, {facts.monitor} {facts.value:.4f}{kept}",
    )


def say_bundle(bundled: Bundled) -> None:
    """Say what was chosen on the validation images."""
    temperature = bundled.temperature
    text = f"{temperature.value:.3g}" if temperature.reason is None else f"1: {temperature.reason}"
    if temperature.offset:  # the report has its numbers
        text = f"{text}, with an offset of each class"
    elif temperature.offset_reason:
        text = f"{text}; {offset_text(temperature, bundled.bundle.classes)}"
    console.say("temperature", f"{text}: {USELESS}" if temperature.useless else text)
    for text in bundled.weighing:
        console.say("costs", text)
    for text in bundled.thresholds:
        console.say("threshold", text)
    if (threshold := bundled.bundle.defer_below) is not None:
        certainty = rule_of(bundled.bundle).certainty_name
        console.say("deferral", f"predictions are deferred where their {certainty} is below {threshold:.4g}")


def say_result(results: Results, warnings: Sequence[str], places: Mapping[str, str]) -> None:
    """Show the result beside its trivial baselines, and say what is wrong with it and where things are."""
    console.heading("Result")
    console.show(_result_table(results))
    if unleaked := results.without_leaked:
        names = ("accuracy", "balanced_accuracy", "roc_auc_macro")
        metrics = ", ".join(f"{HEADLINE[name]} {metric_text(unleaked[name])}" for name in names)
        console.say("leaked", f"without them, on {unleaked['accuracy']['n']} images: {metrics}")
    for text in warnings:
        console.warn(text)
    say_places(places)


def _result_table(results: Results) -> Table:
    """Put the network with its confidence intervals beside the baselines, 80 characters wide if class names allow."""
    metrics, baselines = results.metrics[results.headline], results.baselines
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), collapse_padding=True)
    table.add_column(f"{results.headline} (n = {metrics['accuracy']['n']})", no_wrap=True)
    table.add_column("network", no_wrap=True)
    for name in baselines:
        table.add_column({"thumbnail": "8x8 thumbnails"}.get(name, name), justify="right")
    for name in SUMMARY:
        others = (number_text(column[name]) for column in baselines.values())
        table.add_row(HEADLINE[name], metric_text(metrics[name]), *others)
    for label, found in metrics["per_class"].items():
        for name in ("sensitivity", "specificity"):
            others = (number_text(column["per_class"][label][name]) for column in baselines.values())
            table.add_row(f"{label}: {name}", metric_text(found[name]), *others)
    return table


def places_of_run(folder: Path, run_id: str | None, uri: str | None) -> dict[str, str]:
    """Name the places of what a run left, in its folder and in MLflow."""
    files = {"report": "report.html", "bundle": "bundle", "spread": "repeats.csv"}
    found = {label: str(shown(folder) / file) for label, file in files.items() if (folder / file).exists()}
    found["everything"] = str(shown(folder))
    if uri is None:
        return {**found, "MLflow": "not tracked"}
    address = f"mlflow ui --backend-store-uri {shlex.quote(uri)}" if uri.startswith("sqlite") else uri
    return {**found, "MLflow": f"run {run_id}", "MLflow UI": address}
