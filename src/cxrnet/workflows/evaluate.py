"""One bundle on other data than its own: the order of the steps.

bundle and its run -> data sets -> copies taken out -> predictions -> results of each -> the fall
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich import get_console
from rich.markup import escape
from rich.table import Table
from sklearn.pipeline import Pipeline

from cxrnet.cli.app import config_folder
from cxrnet.cli.run_folder import refuse_used, say_places, shown
from cxrnet.core import console
from cxrnet.core.config import Config, flat, own_mappings, plain_config, write_config
from cxrnet.core.machine import machine_told
from cxrnet.core.provenance import package_versions
from cxrnet.core.spreadsheet import to_csv
from cxrnet.data.duplicates.overlap import KnownImages, load_known
from cxrnet.data.leaks import write_conflicts
from cxrnet.data.manifest import digest, write_manifest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.generalisation import generalisation_table, same_classes, shared_classes
from cxrnet.evaluation.metrics import Evaluation
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.evaluation.prior import Mix, read_mix
from cxrnet.evaluation.settings import check_settings
from cxrnet.inference import mix_facts, mix_tags, predict_images, predictions_of
from cxrnet.models.bundle import Bundle, device_of
from cxrnet.reporting.analysis import evaluator
from cxrnet.reporting.external import (
    external_section,
    has_intervals,
    printed_baselines,
    printed_generalisation,
    verdicts,
    write_generalisation,
)
from cxrnet.reporting.model_card import with_external, write_card
from cxrnet.reporting.report import thumbnail_verdict
from cxrnet.reporting.results import Results, write_results
from cxrnet.reporting.run_page import shown_metrics
from cxrnet.tracking.record import RECORD
from cxrnet.tracking.run import track
from cxrnet.tracking.store import tracking_uri
from cxrnet.tracking.tracker import TrackedRun
from cxrnet.training.baselines import majority_logits, thumbnail_model, thumbnails
from cxrnet.workflows.added_keys import check_added_keys
from cxrnet.workflows.bundle_origin import Origin, at_mix, find_origin
from cxrnet.workflows.external_data import (
    ExternalSet,
    data_facts,
    documented_issues,
    mix_statement,
    read_set,
    statement,
    take_out_copies,
)


@dataclass(frozen=True)
class ExternalBaselines:
    """The baselines of a bundle's run.

    Attributes:
        classes: of the bundle.
        counts: of each class, the training images of the run; empty where they aren't known.
        thumbnails: the linear model on their thumbnails; ``None`` where they can't be read.
        gap: which of the two is missing and why; empty where none is.
    """

    classes: Sequence[str]
    counts: Sequence[int]
    thumbnails: Pipeline | None
    gap: str


def fit_baselines(known: KnownImages | None, classes: Sequence[str]) -> ExternalBaselines:
    """Fit the baselines on the training images of a bundle's run, read at the size at which copies are looked for.

    Args:
        known: the images of the run; ``None`` where they aren't known.
        classes: of the bundle.
    """
    if known is None:
        return ExternalBaselines(classes, [], None, "the images that the bundle was made with are not known")
    rows = known.manifest[known.manifest["split"] == "train"]
    counts = [int((rows["label"] == name).sum()) for name in classes]
    there = (known.readable["split"] == "train").to_numpy(bool)
    if lost := len(rows) - int(there.sum()):
        return ExternalBaselines(
            classes, counts, None, f"no thumbnails, as {lost} of {len(rows)} training images can't be read any more"
        )
    labels = known.readable.loc[there, "label"].map({name: place for place, name in enumerate(classes)})
    model = thumbnail_model(known.images.take(there), labels.to_numpy("int64"))
    return ExternalBaselines(classes, counts, model, "")


def predict_baselines(baselines: ExternalBaselines, each: ExternalSet, mix: Mix) -> dict[str, pd.DataFrame]:
    """Predictions of the baselines that there are, ``majority`` and ``thumbnail``, on one data set, at a mix."""
    shift = mix.shift(baselines.classes)
    logits = {"majority": majority_logits(baselines.counts, len(each.manifest))} if baselines.counts else {}
    if baselines.thumbnails is not None:
        logits["thumbnail"] = baselines.thumbnails.predict_log_proba(thumbnails(each.small))
    return {
        name: make_predictions(each.manifest, baselines.classes, values.astype("float32"), shift=shift)
        for name, values in logits.items()
    }


@dataclass(frozen=True)
class Tested:
    """What came of one data set.

    Attributes:
        results: on it.
        external: its figures, means over the classes ``over``.
        internal: the same on the bundle's own test images of these classes; ``None`` where there are none.
        over: the classes that both have.
        baselines: as ``external``, by name of the baseline.
    """

    results: Results
    external: Evaluation
    internal: Evaluation | None
    over: list[str]
    baselines: dict[str, Evaluation]


def evaluate_set(
    each: ExternalSet,
    origin: Origin,
    mix: Mix,
    baselines: ExternalBaselines,
    config: Config,
    folder: Path,
    run: TrackedRun,
) -> Tested:
    """Evaluate on one data set; means over classes are over those that it has, and the internal test images too.

    Args:
        each: the data set, copies taken out.
        origin: the bundle and its own test result, at the same mix.
        mix: that the probabilities are of.
        baselines: of the bundle's run.
        config: plain, of the command.
        folder: of this data set; it is made.
        run: that tracks the evaluation.
    """
    predictions, trivial = _predict(origin.bundle, mix, each, config), predict_baselines(baselines, each, mix)
    results = _results(each, predictions, trivial, origin.bundle, mix, config, folder, run)
    own = None if origin.test is None else same_classes(origin.test, predictions)
    own = own if own is not None and len(own) else None
    over = shared_classes(own, predictions)
    evaluated = partial(evaluator(config["evaluation"]), over=over)
    whole = len(over) == len(origin.bundle.classes)
    return Tested(
        results,
        results.metrics["test"] if whole else evaluated(predictions),
        None if own is None else evaluated(own),
        over,
        results.baselines if whole else {name: evaluated(table) for name, table in trivial.items()},
    )


def thumbnail_warnings(tested: Mapping[str, Tested]) -> list[str]:
    """On which data the network does not beat the thumbnails."""
    both = {
        name: (each.external, each.baselines["thumbnail"])
        for name, each in tested.items()
        if "thumbnail" in each.baselines
    }
    found = {name: thumbnail_verdict(network, thumbnail) for name, (network, thumbnail) in both.items()}
    return [f"{name}: {verdict.removesuffix('.')}" for name, verdict in found.items() if verdict]


def _predict(bundle: Bundle, mix: Mix, each: ExternalSet, config: Config) -> pd.DataFrame:
    with get_console().status(escape(f"predicting {each.name}")):
        logits = predict_images(bundle, each.images, config["batch_size"], device_of(config["device"]))
    return predictions_of(bundle, each.manifest, logits, mix)


def _results(
    each: ExternalSet,
    predictions: pd.DataFrame,
    baselines: Mapping[str, pd.DataFrame],
    bundle: Bundle,
    mix: Mix,
    config: Config,
    folder: Path,
    run: TrackedRun,
) -> Results:
    """Write what there is to say of one data set, and tell MLflow."""
    folder.mkdir()
    write_manifest(each.manifest, folder / "manifest.parquet")
    write_conflicts(each.within, each.manifest, folder)
    results = write_results(
        folder,
        predictions,
        baselines,
        bundle.classes,
        config["evaluation"],
        temperature=bundle.temperature,
        mix=mix,
        offset=bundle.temperature_offset,
    )
    metrics = results.metrics["test"]
    named, counts = digest(each.manifest), {str(k): int(n) for k, n in each.manifest["label"].value_counts().items()}
    run.log_dataset(each.name, named, str(folder / "manifest.parquet"), {"test": counts}, "evaluation")
    run.set_tags({f"cxrnet.data.digest.{each.name}": named})
    run.log_metrics(shown_metrics(metrics, each.name), 0)
    run.log_results(folder, below=each.name)
    return results


COUNTED = ("root", "manifest", "on_error", "known_issues")  # of a data option; the rest is of training


def configured_sets(config: DictConfig, option: str | None, overrides: Sequence[str]) -> dict[str, Config]:
    """Compose the data options that are asked for.

    Args:
        config: as composed from ``conf/evaluate.yaml``.
        option: the name of the option ``data``, if one is given.
        overrides: the command line.

    Returns:
        By name of the data set its option, plain; that of ``data`` is called as its option.

    Raises:
        CxrnetError: there is none, an option or a key doesn't exist or means nothing here, or a name stands twice.
    """
    external, changes = _named(config.external), _plain(config.sets)
    options = {option: option, **external} if option else external
    if not options:
        raise CxrnetError("data: nothing to evaluate on; give data=<option> or +external=[<option>, ...]")
    if option in external:
        raise CxrnetError(f"external: '{option}' is the data set of data too; give one of them another name, {{a: b}}")
    _check_names(changes, external, "sets")
    _check_names(_plain(config.classes), options, "classes")
    own = {text.lstrip("+~").split("=")[0].split(".")[1] for text in overrides if text.lstrip("+~").startswith("data.")}
    _check_keys(own, "data")
    sets = {option: _plain(config.data)} if option else {}
    return sets | {name: _composed(name, external[name], changes.get(name) or {}, config.seed) for name in external}


def _named(external: Any) -> dict[str, str]:  # noqa: ANN401 (whatever a user typed)
    """Option by name."""
    if external is None:
        return {}
    value: Any = OmegaConf.to_container(external) if OmegaConf.is_config(external) else external
    if isinstance(value, list) and len(set(map(str, value))) == len(value):
        value = {option: option for option in value}
    if not isinstance(value, dict) or not all(isinstance(option, str) for option in value.values()):
        raise CxrnetError(
            f"external: {value} won't do; give options of data, as [a, b], or names for them, as {{n: a}}"
        )
    if bad := [name for name in value if not re.fullmatch(r"\w[\w-]*", str(name))]:
        raise CxrnetError(f"external: '{bad[0]}' is no name for a folder; use letters, digits, _ and -")
    return {str(name): option for name, option in value.items()}


def _plain(config: DictConfig | None) -> Config:
    if config is None:
        return {}
    return plain_config(config)


def _check_names(given: Config, names: Mapping[str, object], where: str) -> None:
    if unknown := [name for name in given if name not in names]:
        known = ", ".join(names) or "none"
        raise CxrnetError(f"{where}.{unknown[0]}: there is no such data set; those that {where} is for: {known}")
    for name, value in given.items():
        if value is not None and not isinstance(value, dict):
            raise CxrnetError(f"{where}.{name}: {value} won't do; give {{key: value}}")


def _check_keys(keys: Iterable[str], where: str) -> None:
    if unknown := sorted(set(keys) - set(COUNTED)):
        raise CxrnetError(f"{where}.{unknown[0]}: means nothing here; of a data option only {', '.join(COUNTED)} count")


def _composed(name: str, option: str, changes: Config, seed: int) -> Config:
    loader = GlobalHydra.instance().config_loader()
    options = [each for each in loader.get_group_options("data") if not each.startswith("_")]
    if option not in options:
        raise CxrnetError(f"external: '{option}' is no option of data; there are {', '.join(options)}")
    _check_keys(changes, f"sets.{name}")
    whole = compose("evaluate", [f"data={option}", f"seed={seed}"])
    try:
        for key in own_mappings(changes):  # which are replaced, not merged into
            OmegaConf.update(whole.data, key, None)
        whole.data = OmegaConf.merge(whole.data, changes)
        return _plain(whole.data)
    except OmegaConfBaseException as error:
        key = str(error.full_key or "").removeprefix("data.")
        reason = str(error).splitlines()[0]
        raise CxrnetError(f"sets.{name}.{key}: {reason}; give sets.{name}.<key>=<value>") from error


COMMAND = ("python", "-m", "cxrnet.evaluate")


def evaluate_external(config: DictConfig, folder: Path, option: str | None, overrides: Sequence[str]) -> None:
    """Evaluate a bundle on other data, and say how much worse it is there.

    Args:
        config: as composed from ``conf/evaluate.yaml``.
        folder: where everything is written; refused if it holds an evaluation already.
        option: the name of the option ``data``, if one is given.
        overrides: the command line.

    Raises:
        CxrnetError: a mistake in the configuration or the data.
    """
    refuse_used(folder, RECORD, "a run")
    plain = plain_config(config)
    sets = configured_sets(config, option, overrides)
    _check(plain)
    outputs, tracking = Path(plain["outputs"]), plain["tracking"]
    uri = tracking_uri(tracking["uri"], outputs)
    origin = find_origin(str(plain["bundle"]), uri)
    mix = read_mix(plain["prior"], origin.bundle.prior)
    origin = at_mix(origin, mix)
    console.log_to(folder)
    command = [*COMMAND, *overrides]
    name = f"{origin.bundle.network.config.backbone} on {' '.join(sets)}"
    with (
        track(folder, uri if tracking["enabled"] else None, tracking["experiment"], outputs, name, command) as run,
        machine_told(),
    ):
        run.log_params(flat({**plain, "sets": sets}))
        run.log_artifact(write_config(folder, plain))
        run.set_tags({"cxrnet.bundle_run_id": origin.run_id or "not known", **mix_tags(origin.bundle, mix)})
        _evaluate(origin, mix, sets, plain, run, folder, command)


def _check(config: Config) -> None:
    """Refuse what can be refused before anything is read."""
    check_settings(config["evaluation"])
    check_added_keys(config, config_folder(), "evaluate")
    device_of(config["device"])
    if type(config["batch_size"]) is not int or config["batch_size"] < 1:
        raise CxrnetError(f"batch_size: {config['batch_size']} is no number of images; give a whole number from 1 on")


def _evaluate(
    origin: Origin,
    mix: Mix,
    configs: Mapping[str, Config],
    config: Config,
    run: TrackedRun,
    folder: Path,
    command: Sequence[str],
) -> None:
    say_origin(origin)
    stated = mix_statement(origin, mix)
    facts = {label: text for label, text in mix_facts(origin.bundle, mix).items() if text not in stated}
    for label, text in facts.items():
        console.say(label, text)
    sets, known, warnings = _read(origin, configs, config, folder)
    warnings += stated
    baselines = fit_baselines(known, origin.bundle.classes)
    tested = {
        each.name: evaluate_set(each, origin, mix, baselines, config, folder / each.name, run)
        for each in sets
        if not each.gap
    }
    warnings += thumbnail_warnings(tested)
    external = {name: each.external for name, each in tested.items()}
    table = generalisation_table(
        {name: each.internal for name, each in tested.items() if each.internal is not None},
        external,
        {name: each.over for name, each in tested.items()},
        {each.name: each.gap for each in sets if each.gap},
    )
    title = f"{origin.bundle.network.config.backbone} on {', '.join(each.name for each in sets)}"
    files = write_generalisation(
        table,
        config["evaluation"]["level"],
        folder,
        title=title,
        warnings=warnings,
        data_sets={each.name: data_facts(each) | documented_issues(each) for each in sets},
        analyses={name: each.results.analyses["test"] for name, each in tested.items()},
        figures={name: each.results.plots for name, each in tested.items()},
        baselines=printed_baselines(external, {name: each.baselines for name, each in tested.items()}, baselines.gap),
        command=shlex.join(command),
        environment=_environment(origin, run, config) | facts,
    )
    if origin.card is not None:
        section = external_section(table, config["evaluation"]["level"], warnings)
        files += write_card(with_external(origin.card, section), folder)
    for file in (*files, folder / "copies.csv"):
        run.log_artifact(file)
    _say_fall(table, config["evaluation"]["level"], warnings)
    say_places(_places(folder))


def _environment(origin: Origin, run: TrackedRun, config: Config) -> dict[str, str]:
    """What it was made with."""
    return {
        "bundle": origin.place,
        "bundle's MLflow run": origin.run_id or "not known",
        "bundle's data digest": origin.bundle.manifest_digest,
        "MLflow run": run.run_id or "not tracked",
        "resamples": str(config["evaluation"]["resamples"]),
        "seed": str(config["evaluation"]["seed"]),
        **package_versions(),
    }


def _read(
    origin: Origin, configs: Mapping[str, Config], config: Config, folder: Path
) -> tuple[list[ExternalSet], KnownImages | None, list[str]]:
    """Read the data sets, take out the copies, and say what was done."""
    labels = config["classes"] or {}
    keys = [f"sets.{name}" for name in configs]
    if config.get("data") is not None:
        keys[0] = "data"
    sets = [
        read_set(name, key, each, labels.get(name) or {}, origin.bundle)
        for key, (name, each) in zip(keys, configs.items(), strict=True)
    ]
    known = load_known(origin.manifest) if origin.manifest is not None else None
    with get_console().status("looking for copies"):
        sets, copies = take_out_copies(sets, known)
    to_csv(copies, folder / "copies.csv")
    for each in sets:
        console.heading(each.name)
        for name, value in data_facts(each).items():
            console.say(name, value)
    return sets, known, statement(origin, known, sets)


def say_origin(origin: Origin) -> None:
    """What is evaluated."""
    config = origin.bundle.network.config
    console.heading("Bundle")
    console.say("bundle", f"{config.backbone}, {config.size[0]} x {config.size[1]} pixels, {', '.join(config.classes)}")
    if origin.manifest is not None:
        console.say(
            "made with", f"{len(origin.manifest)} images of {', '.join(sorted(set(origin.manifest['source'])))}"
        )
    if origin.test is not None:
        console.say("tested on", f"{len(origin.test)} of them that were not seen before")


def _say_fall(table: pd.DataFrame, level: float, warnings: Sequence[str]) -> None:
    printed = printed_generalisation(table, level)
    console.heading(f"{printed.title} ({level:.0%} intervals)" if has_intervals(table) else printed.title)
    for data, rows in printed.groups():
        lines = Table(box=None, pad_edge=False, padding=(0, 1, 0, 1))
        for place, title in enumerate([data, *printed.rows.columns[2:]]):
            lines.add_column(title, justify="right" if place else "left", no_wrap=place > 0)
        for row in rows:
            lines.add_row(*row)
        console.show(lines)
    for text in verdicts(table):
        console.say("so", text)
    for text in warnings:
        console.warn(text)


def _places(folder: Path) -> dict[str, str]:
    card = shown(folder) / "MODEL_CARD.md"
    none = "not written: beside the bundle lies none of its run that these results could be added to"
    return {
        "page": str(shown(folder) / "generalisation.html"),
        "model card": str(card) if card.exists() else none,
        "everything": str(shown(folder)),
    }
