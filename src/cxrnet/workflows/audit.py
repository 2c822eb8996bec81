"""Audit a bundle: what does it tell the classes from?

bundle and its run -> images and lungs -> looks -> maps -> verdict -> page, the run's report and card, MLflow
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from cxrnet.cli.run_folder import refuse_used, say_places, shown
from cxrnet.core import console
from cxrnet.core.atomic import write_table
from cxrnet.core.config import Config, flat, plain_config, write_config
from cxrnet.core.machine import package_versions
from cxrnet.data.duplicates import SEARCH_SIZE
from cxrnet.data.external import load_known, read_set, remove_duplicates
from cxrnet.data.images.reader import AtSize
from cxrnet.data.images.store import load_at_sizes
from cxrnet.data.regions import find_lungs
from cxrnet.data.shards.reading import root_of
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.audit import CORNERS, Sampling, findings
from cxrnet.models.attribution import captum
from cxrnet.models.bundle import device_of
from cxrnet.reporting.audit import (
    AuditFacts,
    add_to_report,
    audit_metrics,
    audit_section,
    say_audit,
    write_audit,
)
from cxrnet.reporting.audit_tables import looks_table
from cxrnet.reporting.model_card import with_audit, write_card
from cxrnet.reporting.wording import command_text
from cxrnet.tracking.record import RECORD, read_record
from cxrnet.tracking.store import printable, tracking_uri
from cxrnet.tracking.tracker import TrackedRun
from cxrnet.workflows.evaluate import Origin, find_origin, set_configs
from cxrnet.workflows.looks import AuditImages, Model, model_looks, probe_looks, telling_corner
from cxrnet.workflows.maps import Attribution, attribute
from cxrnet.workflows.run_context import read_run_facts, tracked

PLAIN = (256, 256)  # pixels at which the acquisition is measured, of files

logger = logging.getLogger("cxrnet")


@dataclass(frozen=True)
class Audited:
    """What is audited.

    Attributes:
        probed: images that the probes are of.
        tested: images that the model is tested on.
        name: what they are, in words.
        notes: what a reader must know of them, in sentences.
        heard: those of them that the console has had already.
        own: they are the run's own.
    """

    probed: AuditImages
    tested: AuditImages
    name: str
    notes: Sequence[str]
    heard: Sequence[str]
    own: bool


def audit(config: DictConfig, folder: Path, option: str | None, command: Sequence[str]) -> None:
    """Audit a bundle on its run's own images, or on the data set of ``option``.

    Raises:
        CxrnetError: a mistake in the configuration or the data, or a folder that holds a run already.
    """
    refuse_used(folder, RECORD, "a run")
    plain = plain_config(config)
    device = device_of(plain["device"])  # which refuses one that is not there
    uri = tracking_uri(plain["tracking"]["uri"], Path(plain["outputs"]))
    origin = find_origin(str(plain["bundle"]), uri)
    check_origin(origin, option)
    if plain["maps"]:
        captum()  # or its lack would be told after minutes
    console.log_to(folder)
    name = f"audit of {origin.bundle.network.config.backbone}"
    with tracked(plain, folder, name, command) as run:
        run.log_params(flat(plain))
        run.log_artifact(write_config(folder, plain))
        run.set_tags({"cxrnet.bundle_run_id": origin.run_id or "not known"})
        console.heading("Images")
        audited = read_own(origin, plain) if option is None else read_other(origin, plain, option)
        for label, images in {"probed": audited.probed, "tested": audited.tested}.items():
            console.say(label, f"{len(images)} images of {audited.name}")
        console.heading("Looks")
        model = Model.of(origin.bundle, plain["batch_size"], device)
        environment = {
            "bundle": origin.place,
            "bundle's MLflow run": origin.run_id or "not known",
            "MLflow run": run.run_id or "not tracked",
            **{name: str(plain[name]) for name in ("seed", "resamples")},
            **package_versions(),
        }
        facts = take_looks(audited, model, plain, command=command_text(command), environment=environment)
        _publish(facts, origin, audited, run, uri)


def take_looks(audited: Audited, model: Model, config: Config, **provenance: Any) -> AuditFacts:  # noqa: ANN401 (handed on)
    """Look at images and model; ``provenance`` is ``command`` and ``environment`` of the facts."""
    sampling = Sampling(config["resamples"], config["seed"], config["level"])
    data = probe_looks(audited.probed, model, sampling)
    tested, changes = model_looks(audited.tested, model, sampling)
    inside, explained, gaps = attribute(audited.tested, model, Attribution.of(config), sampling)
    in_corners = [each.label for each in findings(data.looks + tested.looks, sampling.level) if each.name == CORNERS]
    corner = telling_corner(audited.probed, model, sampling, in_corners[0]) if in_corners else ""
    return AuditFacts(
        title=f"{model.bundle.network.config.backbone} on {audited.name}",
        classes=model.bundle.classes,
        looks=[*data.looks, *tested.looks],
        changes=changes,
        inside=inside,
        explained=explained,
        corner=corner,
        lungs=audited.probed.lungs.kind,
        gaps=[*audited.notes, *dict.fromkeys([*data.gaps, *tested.gaps, *gaps])],
        sampling=sampling,
        **provenance,
    )


def check_origin(origin: Origin, option: str | None) -> None:
    """Refuse a bundle that has no images of its own, where none are given.

    Raises:
        CxrnetError: there are none.
    """
    if option is None and (origin.manifest is None or origin.test is None):
        lacks = "no manifest.parquet of its run lies beside it" if origin.manifest is None else "its run tested none"
        raise CxrnetError(f"bundle: '{origin.place}' has no test images of its own ({lacks}); give data=<option>")


def read_own(origin: Origin, config: Config) -> Audited:
    """Read the images of the bundle's own run: the test images that were not leaked, and for probes the others too."""
    assert origin.manifest is not None
    assert origin.test is not None
    clean = set(origin.test["image_id"])
    frozen, why = _is_frozen(origin)
    rows = origin.manifest if frozen else origin.manifest[origin.manifest["image_id"].isin(clean)]
    notes = [] if frozen else [f"the probes are of the test images alone: {why}"]
    rows, limited = _limited(rows.reset_index(drop=True), config, clean)
    data, heard = _read(rows, origin, config)
    tested = data.take(data.rows["image_id"].isin(clean).to_numpy(bool))
    if not len(tested):
        raise CxrnetError(f"bundle: not one test image of the run of '{origin.place}' can be read; give data=<option>")
    sources = ", ".join(sorted(set(data.rows["source"])))
    return Audited(data, tested, sources, [*heard, *notes, *limited, *data.lungs.notes], heard, own=True)


def read_other(origin: Origin, config: Config, option: str) -> Audited:
    """Read another data set, without the images that duplicate those of the bundle's run."""
    bundle, known = origin.bundle, None
    at = (bundle.network.config.size, bundle.resize)
    (asked,) = set_configs({"sets": {}, **config}, option)
    each = read_set(asked, bundle.classes, at)
    if origin.manifest is not None:
        known = load_known(origin.manifest, Path(config["cache"]) if config["cache"] else None)
    (each,), removed = remove_duplicates([each], known)
    notes = [f"{len(removed)} images are duplicates of images of the bundle's run and were removed"] * bool(
        len(removed)
    )
    if known is None:
        notes.append("the images of the bundle's run are not known: duplicates of them may be among these")
    rows, limited = _limited(each.manifest, config)
    data, heard = _read(rows, origin, config)
    heard = list(dict.fromkeys([*each.notes, *heard]))
    return Audited(data, data, option, [*heard, *notes, *limited, *data.lungs.notes], heard, own=False)


def _is_frozen(origin: Origin) -> tuple[bool, str]:
    """Tell whether a run left the backbone as it was, so that no image is known to its features; and why not."""
    phases = read_run_facts(origin.folder).get("phases") if origin.folder else None
    if not phases:
        return False, "it isn't known whether the run trained the backbone"
    frozen = all(phase["trainable"] == "head" for phase in phases)
    return frozen, "" if frozen else "the run trained the backbone, so that its features know the others"


def _limited(rows: pd.DataFrame, config: Config, first: Collection[str] = ()) -> tuple[pd.DataFrame, list[str]]:
    """Draw no more images than asked for, before all others those with the ids of ``first``."""
    if config["limit"] is None or len(rows) <= config["limit"]:
        return rows, []
    order = np.random.default_rng(config["seed"]).permutation(len(rows))
    later = ~rows["image_id"].isin(list(first)).to_numpy(bool)[order]
    chosen = order[np.argsort(later, kind="stable")[: config["limit"]]]
    note = f"{config['limit']} of {len(rows)} images, drawn at random, are looked at (limit)"
    return rows.iloc[np.sort(chosen)].reset_index(drop=True), [note]


def _read(rows: pd.DataFrame, origin: Origin, config: Config) -> tuple[AuditImages, list[str]]:
    """Read images and lungs; what can't be read is left out, and said: the second are those warnings."""
    network = origin.bundle.network.config
    cache = Path(config["cache"]) if config["cache"] else None
    plain_size = PLAIN if root_of(rows["path"]) is None else SEARCH_SIZE  # shards hold no other
    sizes: list[AtSize] = [(network.size, origin.bundle.resize), (plain_size, "stretch")]
    with console.heard() as notes:
        read, (images, plain) = load_at_sizes(rows, sizes, "skip", cache)
    lungs = find_lungs(read, sizes[0], config["lungs"])
    return AuditImages(read, images, plain, lungs), notes


def _publish(facts: AuditFacts, origin: Origin, audited: Audited, run: TrackedRun, uri: str) -> None:
    """Write page and tables; say the verdict in the run's report, its card and MLflow, where these are at hand."""
    folder = run.folder
    for name, table in {
        "looks": looks_table(facts.looks, facts.verdict.found),
        "changes": facts.changes,
        "maps": facts.inside,
    }.items():
        write_table(table, folder / f"audit_{name}.csv")
    page = write_audit(facts, folder)
    places = {"page": str(shown(folder) / page.name)}
    for file in (page, *sorted(folder.glob("audit_*.csv"))):
        run.log_artifact(file)
    run.log_metrics(audit_metrics(facts), 0)
    tags = {"cxrnet.audit": facts.verdict.gist, "mlflow.note.content": " ".join(facts.verdict.sentences)}
    run.set_tags(tags)
    own = origin.folder if audited.own else None
    if own is not None and (own / "report.html").is_file():
        run.log_artifact(add_to_report(facts, own / "report.html"))
        places["report"] = f"{shown(own) / 'report.html'}, before the headline"
    else:
        why = "the audit is of other data" if not audited.own else "beside the bundle lies none of its run"
        places["report"] = f"unchanged: {why}"
    if origin.card is not None:
        where = own or folder
        for file in write_card(with_audit(origin.card, audit_section(facts)), where):
            run.log_artifact(file)
        places["model card"] = str(shown(where) / "MODEL_CARD.md")
    else:
        places["model card"] = "not written: beside the bundle lies none of its run that the verdict could be added to"
    if origin.run_id and own is not None and read_record(own).get("tracking_uri") == printable(uri):
        run.set_tags({"cxrnet.audit": facts.verdict.gist, "cxrnet.audited_in": run.run_id or ""}, of=origin.run_id)
    say_audit(facts, audited.heard)
    say_places({**places, "everything": str(shown(folder))})
