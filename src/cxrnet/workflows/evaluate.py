"""Evaluate one bundle on external data: the order of the steps.

bundle and its run -> data sets -> duplicates removed -> predictions -> metrics of each set -> performance drop
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from omegaconf import DictConfig
from rich import get_console
from rich.markup import escape

from cxrnet.cli.run_folder import refuse_used, say_places, shown
from cxrnet.core import console
from cxrnet.core.config import Config, flat, plain_config, write_config
from cxrnet.core.machine import machine_told
from cxrnet.core.provenance import package_versions
from cxrnet.core.spreadsheet import to_csv
from cxrnet.data.duplicates.overlap import KnownImages, load_known
from cxrnet.data.external import ExternalSet, SetConfig, read_set, remove_duplicates
from cxrnet.data.leaks import leaked_images, write_conflicts
from cxrnet.data.manifest import digest, read_manifest, write_manifest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.generalisation import Sides, internal_side, shared_classes
from cxrnet.evaluation.metrics import Evaluation
from cxrnet.evaluation.predictions import logits_of, read_predictions
from cxrnet.evaluation.prior import Mix, read_mix
from cxrnet.inference import mix_facts, mix_tags, predict_images, predictions_of
from cxrnet.models.bundle import Bundle, device_of, load_bundle
from cxrnet.reporting.analysis import evaluator
from cxrnet.reporting.external import (
    ExternalFacts,
    data_facts,
    data_warnings,
    external_section,
    mix_warnings,
    origin_warnings,
    say_external,
    write_external,
)
from cxrnet.reporting.model_card import Card, read_card, with_external, write_card
from cxrnet.reporting.results import Results, write_results
from cxrnet.reporting.run_page import shown_metrics
from cxrnet.reporting.wording import command_text
from cxrnet.tracking.read import fetch_run
from cxrnet.tracking.record import RECORD, read_record
from cxrnet.tracking.run import track
from cxrnet.tracking.store import tracking_uri
from cxrnet.tracking.tracker import TrackedRun
from cxrnet.training.baselines import Baselines, fit_baselines

RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Origin:
    """A bundle and what is known of its run.

    Attributes:
        bundle: the model.
        place: what the user called it.
        run_id: of the run in MLflow; ``None`` where it isn't known.
        manifest: of the run's images, with their splits; ``None`` where none that fits the bundle lies beside it.
        test: the run's own predictions of its test images that weren't leaked; ``None`` where there are none.
        card: of the model; ``None`` where there is none.
        leaked: number of test images whose patient, or a duplicate, is in train or val.
        mix: of classes, that all probabilities are of.
    """

    bundle: Bundle
    place: str
    run_id: str | None
    manifest: pd.DataFrame | None
    test: pd.DataFrame | None
    card: Card | None
    leaked: int
    mix: Mix


def find_origin(place: str, uri: str, prior: object = None) -> Origin:
    """Open a bundle.

    Args:
        place: the folder of a bundle or of a run, or the id of an MLflow run.
        uri: of MLflow, asked for run ids only.
        prior: share by class, to which the run's own test result is carried over; ``None`` for the training mix.

    Raises:
        CxrnetError: there is no bundle, a file of its run is damaged, or the prior won't do.
    """
    folder = Path(place)
    if folder.is_dir():
        inside = (folder / "bundle").is_dir()
        origin = _open(folder / "bundle" if inside else folder, folder if inside else folder.resolve().parent, place)
    elif RUN_ID.fullmatch(place):
        with TemporaryDirectory() as scratch:
            run = fetch_run(uri, place, Path(scratch))
            origin = replace(_open(run / "bundle", run, place), run_id=place)
    else:
        raise CxrnetError(f"bundle: '{place}' is no folder and no id of an MLflow run; give one of them")
    mix = read_mix(prior, origin.bundle.prior)
    if origin.test is None or mix.asked is None:
        return replace(origin, mix=mix)
    return replace(origin, mix=mix, test=predictions_of(origin.bundle, origin.test, logits_of(origin.test), mix))


def _open(folder: Path, run: Path, place: str) -> Origin:
    """Read a bundle and the files of its run; a manifest of other data than the bundle's counts for nothing."""
    bundle, file = load_bundle(folder), run / "manifest.parquet"
    manifest = read_manifest(file) if file.is_file() else None
    if manifest is None or digest(manifest) != bundle.manifest_digest:
        return Origin(bundle, place, None, None, None, None, 0, Mix())
    test = read_predictions(run / "predictions.parquet").query("split == 'test'")
    leaked = test["image_id"].isin(leaked_images(manifest, "test"))
    clean = test[~leaked].reset_index(drop=True)
    run_id = read_record(run).get("run_id")
    return Origin(
        bundle, place, run_id, manifest, clean if len(clean) else None, read_card(run), int(leaked.sum()), Mix()
    )


@dataclass(frozen=True)
class Job:
    """The context of an evaluation: the bundle and its run, the plain configuration, the tracked run."""

    origin: Origin
    config: Config
    run: TrackedRun


def evaluate_set(each: ExternalSet, baselines: Baselines, job: Job) -> tuple[Results, Sides]:
    """Evaluate on one data set, write its folder and tell MLflow.

    Args:
        each: the data set, duplicates removed.
        baselines: of the bundle's run.
        job: the bundle, the configuration and the run.

    Returns:
        The results over all classes, and the metrics of both sides over the classes that both have.
    """
    origin, settings = job.origin, job.config["evaluation"]
    with get_console().status(escape(f"predicting {each.name}")):
        batch, device = job.config["batch_size"], device_of(job.config["device"])
        logits = predict_images(origin.bundle, each.images, batch, device)
    predictions = predictions_of(origin.bundle, each.manifest, logits, origin.mix)
    trivial = baselines.predict(each, origin.mix)
    folder = job.run.folder / each.name
    folder.mkdir()
    write_manifest(each.manifest, folder / "manifest.parquet")
    write_conflicts(each.within, each.manifest, folder)
    results = write_results(
        folder,
        predictions,
        trivial,
        each.classes,
        settings,
        temperature=origin.bundle.temperature,
        mix=origin.mix,
        offset=origin.bundle.temperature_offset,
    )
    _track_set(each, results.metrics["test"], job.run)
    own = internal_side(origin.test, predictions)
    over = shared_classes(predictions, own)
    evaluated = partial(evaluator(settings), over=over)
    internal = None if own is None else evaluated(own)
    if len(over) == len(each.classes):
        return results, Sides(results.metrics["test"], internal, over, results.baselines)
    return results, Sides(evaluated(predictions), internal, over, {k: evaluated(v) for k, v in trivial.items()})


def _track_set(each: ExternalSet, metrics: Evaluation, run: TrackedRun) -> None:
    folder, named = run.folder / each.name, digest(each.manifest)
    counts = {str(name): int(n) for name, n in each.manifest["label"].value_counts().items()}
    run.log_dataset(each.name, named, str(folder / "manifest.parquet"), {"test": counts}, "evaluation")
    run.set_tags({f"cxrnet.data.digest.{each.name}": named})
    run.log_metrics(shown_metrics(metrics, each.name), 0)
    run.log_results(folder, below=each.name)


def set_configs(config: Config, option: str | None) -> list[SetConfig]:
    """List the external data sets of a configuration.

    Args:
        config: of ``conf/evaluate.yaml``, plain.
        option: name of the option ``data``, if one is given; its data set has the same name.

    Raises:
        CxrnetError: there is none, a name stands twice, or ``classes`` names another one.
    """
    sets, classes = config["sets"] or {}, config["classes"] or {}
    if option in sets:
        raise CxrnetError(f"external: '{option}' is the data set of data too; give one of them another name, {{a: b}}")
    data = ({option: ("data", config["data"])} if option else {}) | {k: (f"sets.{k}", v) for k, v in sets.items()}
    if not data:
        raise CxrnetError("data: nothing to evaluate on; give data=<option> or +external=[<option>, ...]")
    if unknown := [name for name in classes if name not in data]:
        raise CxrnetError(f"classes.{unknown[0]}: there is no such data set; there are {', '.join(data)}")
    for name, labels in classes.items():
        if not isinstance(labels, dict | None):
            raise CxrnetError(f"classes.{name}: {labels} won't do; give {{label: class}}")
    cache = {"cache": config["cache"]}
    return [SetConfig(name, key, {**each, **cache}, classes.get(name) or {}) for name, (key, each) in data.items()]


def evaluate_external(config: DictConfig, folder: Path, option: str | None, command: Sequence[str]) -> None:
    """Evaluate a bundle on external data, and state the performance drop.

    Args:
        config: as composed from ``conf/evaluate.yaml``.
        folder: where everything is written; refused if it holds an evaluation already.
        option: name of the option ``data``, if one is given.
        command: that is run.

    Raises:
        CxrnetError: a mistake in the configuration or the data.
    """
    refuse_used(folder, RECORD, "a run")
    plain = plain_config(config)
    configs = set_configs(plain, option)
    device_of(plain["device"])  # which refuses one that is not there
    outputs, tracking = Path(plain["outputs"]), plain["tracking"]
    uri = tracking_uri(tracking["uri"], outputs)
    origin = find_origin(str(plain["bundle"]), uri, plain["prior"])
    console.log_to(folder)
    name = f"{origin.bundle.network.config.backbone} on {' '.join(each.name for each in configs)}"
    tracked = track(folder, uri if tracking["enabled"] else None, tracking["experiment"], outputs, name, command)
    with tracked as run, machine_told():
        run.log_params(flat(plain))
        run.log_artifact(write_config(folder, plain))
        run.set_tags({"cxrnet.bundle_run_id": origin.run_id or "not known", **mix_tags(origin.bundle, origin.mix)})
        _evaluate(configs, Job(origin, plain, run), command)


def _evaluate(configs: Sequence[SetConfig], job: Job, command: Sequence[str]) -> None:
    origin, run, folder = job.origin, job.run, job.run.folder
    mixed = mix_warnings(origin.bundle, origin.mix)
    mix = {label: text for label, text in mix_facts(origin.bundle, origin.mix).items() if text not in mixed}
    _say_origin(origin, mix)
    sets, known = _read(configs, origin, folder)
    baselines = fit_baselines(known, origin.bundle.classes)
    found = {each.name: evaluate_set(each, baselines, job) for each in sets if not each.gap}
    tested = 0 if origin.test is None else len(origin.test)
    facts = ExternalFacts(
        title=f"{origin.bundle.network.config.backbone} on {', '.join(each.name for each in sets)}",
        sets=sets,
        results={name: results for name, (results, _) in found.items()},
        sides={name: sides for name, (_, sides) in found.items()},
        baseline_gap=baselines.gap,
        level=job.config["evaluation"]["level"],
        warnings=[*origin_warnings(known, origin.leaked, tested), *data_warnings(sets), *mixed],
        command=command_text(command),
        environment=_environment(job) | mix,
    )
    files = write_external(facts, folder)
    if origin.card is not None:
        files += write_card(with_external(origin.card, external_section(facts)), folder)
    for file in (*files, folder / "duplicates.csv"):
        run.log_artifact(file)
    say_external(facts)
    say_places(_places(folder))


def _environment(job: Job) -> dict[str, str]:
    settings = job.config["evaluation"]
    return {
        "bundle": job.origin.place,
        "bundle's MLflow run": job.origin.run_id or "not known",
        "bundle's data digest": job.origin.bundle.manifest_digest,
        "MLflow run": job.run.run_id or "not tracked",
        "resamples": str(settings["resamples"]),
        "seed": str(settings["seed"]),
        **package_versions(),
    }


def _read(configs: Sequence[SetConfig], origin: Origin, folder: Path) -> tuple[list[ExternalSet], KnownImages | None]:
    """Read the data sets and the images of the run, and remove the duplicates."""
    at = (origin.bundle.network.config.size, origin.bundle.resize)
    sets = [read_set(each, origin.bundle.classes, at) for each in configs]
    known = load_known(origin.manifest) if origin.manifest is not None else None
    with get_console().status("looking for duplicates"):
        sets, removed = remove_duplicates(sets, known)
    to_csv(removed, folder / "duplicates.csv")
    for each in sets:
        console.heading(each.name)
        for name, value in data_facts(each).items():
            console.say(name, value)
    return sets, known


def _say_origin(origin: Origin, facts: Mapping[str, str]) -> None:
    config = origin.bundle.network.config
    console.heading("Bundle")
    console.say("bundle", f"{config.backbone}, {config.size[0]} x {config.size[1]} pixels, {', '.join(config.classes)}")
    if origin.manifest is not None:
        sources = ", ".join(sorted(set(origin.manifest["source"])))
        console.say("made with", f"{len(origin.manifest)} images of {sources}")
    if origin.test is not None:
        console.say("tested on", f"{len(origin.test)} of them that were not leaked into training")
    for label, text in facts.items():
        console.say(label, text)


def _places(folder: Path) -> dict[str, str]:
    card = shown(folder) / "MODEL_CARD.md"
    none = "not written: beside the bundle lies none of its run that these results could be added to"
    return {
        "page": str(shown(folder) / "generalisation.html"),
        "model card": str(card) if card.exists() else none,
        "everything": str(shown(folder)),
    }
