"""Evaluate one bundle on external data.

bundle and its run -> data sets -> duplicates removed -> predictions -> metrics of each set -> performance drop
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from omegaconf import DictConfig
from rich import get_console
from rich.markup import escape

from cxrnet.cli.run_folder import refuse_used, say_places, shown
from cxrnet.core import console
from cxrnet.core.config import Config, flat, plain_config, write_config
from cxrnet.core.machine import package_versions
from cxrnet.core.spreadsheet import to_csv
from cxrnet.data.external import (
    ExternalSet,
    KnownImages,
    SetConfig,
    load_known,
    read_set,
    remove_duplicates,
    without_strange,
)
from cxrnet.data.leaks import leaked_images, write_conflicts
from cxrnet.data.manifest import digest, read_manifest, write_manifest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.decision import Mix, read_mix
from cxrnet.evaluation.generalisation import Sides, internal_side, shared_classes
from cxrnet.evaluation.predictions import logits_of, read_predictions
from cxrnet.inference import judge, mix_facts, mix_tags, predictions_of
from cxrnet.models.bundle import Bundle, device_of, load_bundle
from cxrnet.models.gate import TURNED_AWAY
from cxrnet.reporting.data_pictures import Looks
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
from cxrnet.reporting.pictures import Pictures
from cxrnet.reporting.results import Results, evaluator, write_results
from cxrnet.reporting.run_page import shown_metrics
from cxrnet.reporting.run_pictures import set_pictures
from cxrnet.reporting.wording import command_text
from cxrnet.tracking.record import RECORD, read_record
from cxrnet.tracking.store import tracking_uri
from cxrnet.tracking.tracker import TrackedRun
from cxrnet.training.baselines import Baselines, fit_baselines
from cxrnet.workflows.bundle_source import find_bundle
from cxrnet.workflows.run_context import tracked


@dataclass(frozen=True)
class Origin:
    """A bundle and what is known of its run.

    Attributes:
        bundle: the model.
        place: what the user called it.
        run_id: id of the run in MLflow; ``None`` where it isn't known.
        manifest: the run's images, with their splits; ``None`` where none that fits the bundle lies beside it.
        test: the run's own predictions of its test images that weren't leaked; ``None`` where there are none.
        card: card of the model; ``None`` where there is none.
        leaked: number of test images whose patient, or a duplicate, is in train or val.
        mix: mix of classes, that all probabilities are of.
        folder: folder of the run; ``None`` where none of its own lies on this machine.
    """

    bundle: Bundle
    place: str
    run_id: str | None
    manifest: pd.DataFrame | None
    test: pd.DataFrame | None
    card: Card | None
    leaked: int
    mix: Mix
    folder: Path | None = None


def find_origin(place: str, uri: str, prior: object = None) -> Origin:
    """Open a bundle.

    Args:
        place: a bundle, as :func:`cxrnet.workflows.bundle_source.find_bundle` takes it.
        uri: address of MLflow.
        prior: share by class, to which the run's own test result is carried over; ``None``: that of the training.

    Raises:
        CxrnetError: there is no bundle, a file of its run is damaged, or the prior won't do.
    """
    with TemporaryDirectory() as scratch:
        source = find_bundle(place, Path(scratch), uri)
        origin = _open(source.folder, source.run, place)
        if source.run_id:
            origin = replace(origin, run_id=source.run_id)
        if source.run == Path(scratch):
            origin = replace(origin, folder=None)
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
    tested = read_predictions(run / "predictions.parquet").query("split == 'test'")
    leaked = tested["image_id"].isin(leaked_images(manifest, "test"))
    clean = tested[~leaked].reset_index(drop=True)
    run_id = read_record(run).get("run_id")
    test = clean if len(clean) else None
    return Origin(bundle, place, run_id, manifest, test, read_card(run), int(leaked.sum()), Mix(), run)


def _evaluate_set(
    each: ExternalSet, logits: np.ndarray, baselines: Baselines, origin: Origin, config: Config, run: TrackedRun
) -> tuple[Results, Sides, Pictures]:
    """Evaluate on one data set whose duplicates were removed, by its logits (N, K); write its folder and tell MLflow.

    Returns:
        The results over all classes, the metrics of both sides over the classes that both have, and its pictures.
    """
    bundle, settings, folder = origin.bundle, config["evaluation"], run.folder / each.name
    predictions = predictions_of(bundle, each.manifest, logits, origin.mix)
    trivial = baselines.predict(each, origin.mix)
    folder.mkdir()
    write_manifest(each.manifest, folder / "manifest.parquet")
    write_conflicts(each.within, each.manifest, folder)
    results = write_results(
        folder,
        predictions,
        trivial,
        each.classes,
        settings,
        temperature=bundle.temperature,
        mix=origin.mix,
        offset=bundle.temperature_offset,
    )
    data_digest = digest(each.manifest)
    counts = {str(name): int(n) for name, n in each.manifest["label"].value_counts().items()}
    run.log_dataset(each.name, data_digest, str(folder / "manifest.parquet"), {"test": counts}, "evaluation")
    run.set_tags({f"cxrnet.data.digest.{each.name}": data_digest})
    run.log_metrics(shown_metrics(results.metrics["test"], each.name), 0)
    run.log_results(folder, below=each.name)
    own = internal_side(origin.test, predictions)
    over = shared_classes(predictions, own)
    evaluated = partial(evaluator(settings), over=over)
    internal = None if own is None else evaluated(own)
    looks = Looks(each.manifest, each.images, as_trained=True)
    pictures = set_pictures(predictions, looks, config["report"]["images"])
    if len(over) == len(each.classes):
        return results, Sides(results.metrics["test"], internal, over, results.baselines), pictures
    sides = Sides(evaluated(predictions), internal, over, {k: evaluated(v) for k, v in trivial.items()})
    return results, sides, pictures


def set_configs(config: Config, option: str | None) -> list[SetConfig]:
    """List the external data sets of a plain configuration; that of ``data`` has the name of its option.

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
    """Evaluate a bundle on external data, and state the performance drop; ``option`` is the chosen one of ``data``.

    Raises:
        CxrnetError: a mistake in the configuration or the data, or a folder that holds a run already.
    """
    refuse_used(folder, RECORD, "a run")
    plain = plain_config(config)
    configs = set_configs(plain, option)
    device_of(plain["device"])  # which refuses one that is not there
    uri = tracking_uri(plain["tracking"]["uri"], Path(plain["outputs"]))
    origin = find_origin(str(plain["bundle"]), uri, plain["prior"])
    console.log_to(folder)
    backbone = origin.bundle.network.config.backbone
    name = f"{backbone} on {' '.join(each.name for each in configs)}"
    with tracked(plain, folder, name, command) as run:
        run.log_params(flat(plain))
        run.log_artifact(write_config(folder, plain))
        run.set_tags({"cxrnet.bundle_run_id": origin.run_id or "not known", **mix_tags(origin.bundle, origin.mix)})
        mixed = mix_warnings(origin.bundle, origin.mix)
        mix = {label: text for label, text in mix_facts(origin.bundle, origin.mix).items() if text not in mixed}
        _say_origin(origin, mix)
        sets, known = _read(configs, origin, folder, plain["cache"])
        sets, logits = _judged(sets, origin.bundle, plain)
        _say_sets(sets)
        baselines = fit_baselines(known, origin.bundle.classes)
        found = {
            each.name: _evaluate_set(each, logits[each.name], baselines, origin, plain, run)
            for each in sets
            if not each.gap
        }
        tested = 0 if origin.test is None else len(origin.test)
        settings = plain["evaluation"]
        facts = ExternalFacts(
            title=f"{backbone} on {', '.join(each.name for each in sets)}",
            sets=sets,
            results={name: results for name, (results, _, _) in found.items()},
            sides={name: sides for name, (_, sides, _) in found.items()},
            pictures={name: pictures for name, (_, _, pictures) in found.items()},
            baseline_gap=baselines.gap,
            level=settings["level"],
            warnings=[*origin_warnings(known, origin.leaked, tested), *data_warnings(sets), *mixed],
            command=command_text(command),
            environment={
                "bundle": origin.place,
                "bundle's MLflow run": origin.run_id or "not known",
                "bundle's data digest": origin.bundle.manifest_digest,
                "MLflow run": run.run_id or "not tracked",
                "resamples": str(settings["resamples"]),
                "seed": str(settings["seed"]),
                **package_versions(),
                **mix,
            },
        )
        files = write_external(facts, folder)
        if origin.card is not None:
            files += write_card(with_external(origin.card, external_section(facts)), folder)
        for file in (*files, folder / "duplicates.csv"):
            run.log_artifact(file)
        say_external(facts)
        card = shown(folder) / "MODEL_CARD.md"
        none = "not written: beside the bundle lies none of its run that these results could be added to"
        page, written = str(shown(folder) / "generalisation.html"), str(card) if card.exists() else none
        say_places({"page": page, "model card": written, "everything": str(shown(folder))})


def _read(
    configs: Sequence[SetConfig], origin: Origin, folder: Path, cache: str | None
) -> tuple[list[ExternalSet], KnownImages | None]:
    """Read the data sets and the images of the run, and remove the duplicates."""
    at = (origin.bundle.network.config.size, origin.bundle.resize)
    sets = [read_set(each, origin.bundle.classes, at) for each in configs]
    known = load_known(origin.manifest, Path(cache) if cache else None) if origin.manifest is not None else None
    with get_console().status("looking for duplicates"):
        sets, removed = remove_duplicates(sets, known)
    to_csv(removed, folder / "duplicates.csv")
    return sets, known


def _judged(
    sets: Sequence[ExternalSet], bundle: Bundle, config: Config
) -> tuple[list[ExternalSet], dict[str, np.ndarray]]:
    """Predict the images of each set and leave those out that the gate turns away; the logits by name of the set.

    Raises:
        CxrnetError: it turns all away.
    """
    gate = config["gate"] and bundle.gate is not None
    compute = judge(bundle if gate else replace(bundle, gate=None), config["batch_size"], device_of(config["device"]))
    left, logits = [], {}
    for each in sets:
        if each.gap:
            left.append(each)
            continue
        with get_console().status(escape(f"predicting {each.name}")):
            judged = compute(each.images)
        logits[each.name] = judged.logits[~judged.turned_away]
        left.append(without_strange(each, judged.turned_away, TURNED_AWAY) if gate else each)
    if all(each.gap for each in left):
        raise CxrnetError("; ".join(f"{each.name}: {each.gap}" for each in left))
    return left, logits


def _say_sets(sets: Sequence[ExternalSet]) -> None:
    for each in sets:
        console.heading(each.name)
        for name, value in data_facts(each).items():
            console.say(name, value)


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
