"""One bundle on other data than its own: the order of the steps.

bundle and its run -> data sets -> copies taken out -> predictions -> results of each -> the fall
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig
from rich import get_console
from rich.table import Table

from cxrnet import console
from cxrnet.added_keys import check_added_keys
from cxrnet.app import config_folder
from cxrnet.configuration import Config, flat, plain_config, write_config
from cxrnet.data.overlap import KnownImages, load_known
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.generalisation import (
    generalisation_table,
    has_intervals,
    printed_generalisation,
    verdicts,
)
from cxrnet.evaluation.generalisation_writing import external_section, printed_baselines, write_generalisation
from cxrnet.evaluation.model_card import with_external, write_card
from cxrnet.evaluation.prior import Mix, read_mix
from cxrnet.evaluation.settings import check_settings
from cxrnet.external_baselines import fit_baselines
from cxrnet.external_options import configured_sets
from cxrnet.external_results import evaluate_set, thumbnail_warnings
from cxrnet.external_sets import ExternalSet, read_set, take_out_copies
from cxrnet.external_statement import data_facts, documented_faults, mix_statement, statement
from cxrnet.inference import mix_facts, mix_tags
from cxrnet.machine import machine_told
from cxrnet.models.bundle import device_of
from cxrnet.origin import Origin, at_mix, find_origin
from cxrnet.output_folder import refuse_used, say_places, shown
from cxrnet.provenance import package_versions
from cxrnet.spreadsheet import to_csv
from cxrnet.tracking.record import RECORD
from cxrnet.tracking.run import track
from cxrnet.tracking.store import tracking_uri
from cxrnet.tracking.tracked import TrackedRun

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
    name = f"{origin.bundle.network.config.backbone}_on_{'_'.join(sets)}"
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
        data_sets={each.name: data_facts(each) | documented_faults(each) for each in sets},
        analyses={name: each.results.analyses["test"] for name, each in tested.items()},
        figures={name: each.results.figures for name, each in tested.items()},
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
