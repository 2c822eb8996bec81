"""What the methods section of a paper asks for, from the configuration and the data of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.leaks import SEEN_BEFORE, leaks
from cxrnet.models.weights import LoadedWeights
from cxrnet.provenance import package_versions
from cxrnet.training.phases import PhaseResult

IMAGE_FOLDS = (
    "the folds part IMAGES, NOT PATIENTS (folds_by=image): images of one patient and copies of one image may be in "
    "training and test, which flatters every figure; it shows what such a leak does and is no result"
)


def methods_of(
    data: XrayDataModule, weights: LoadedWeights, phases: Sequence[PhaseResult], config: Mapping[str, Any]
) -> dict[str, str]:
    """Describe a run under the names of :attr:`cxrnet.evaluation.facts.RunFacts.methods`."""
    schedule, kept = config["schedule"], next(phase for phase in phases if phase.kept)
    return {
        "sources": sources_of(data),
        "preprocessing": f"grey, {data.size[0]} x {data.size[1]} pixels (resize: {data.resize}), normalised as the "
        "weights of the backbone want it",
        "selection": _selection(data),
        "split": _split(config),
        "level": _level(data.manifest),
        "characteristics": _characteristics(data.manifest),
        "initial weights": weights.detail if weights.pretrained else "random",
        "training": f"{_call(config['optimizer'])}; {_call(config['loss'])}; batches of {data.batch_size}, drawn by "
        f"{data.sampler}; augmentation: {_augmentation(config, phases)}; {_phases(phases)}; seed {config['seed']}",
        "final model": f"{_choice(kept, schedule['monitor'])}: {kept.kept_epoch}, {kept.kept_score:.4g}",
        "software": ", ".join(f"{name} {version}" for name, version in package_versions().items()),
    }


def sources_of(data: XrayDataModule) -> str:
    """Names of the sources that the images come from."""
    return ", ".join(sorted(data.manifest["source"].unique()))


def faults_of(known: Mapping[str, Sequence[str]]) -> list[str]:
    """What is documented to be wrong with data, by source, as sentences.

    >>> faults_of({"north": ["patients are not known"]})
    ['north: patients are not known.']
    """
    return [f"{source}: {text}." for source, faults in known.items() for text in faults]


def _selection(data: XrayDataModule) -> str:
    limit = f"at most {data.limit} images of each class in each split" if data.limit else "all images of the manifest"
    return f"{limit}; {data.left_out} could not be read" if data.left_out else limit


def _split(config: Mapping[str, Any]) -> str:
    """How the images were split: as ``data.split`` says, or, of one run of a cross-validation, by its fold."""
    if config.get("fold") is None:
        return _call(config["data"]["split"])
    fold, folds, by = config["fold"], config["folds"], config["folds_by"]
    text = (
        f"fold {fold} of {folds} is test, the next one validation, the others training "
        f"(fold_manifest(folds={folds}, fold={fold - 1}, by={by}, seed={config['seed']}))"
    )
    return f"{text}; {IMAGE_FOLDS}" if by == "image" else text


def _level(manifest: pd.DataFrame) -> str:
    """At which level the splits are disjoint, as far as the data tell."""
    parts = []
    for split, leak in leaks(manifest).items():
        seen = " or ".join(SEEN_BEFORE[split])
        patients = f"{leak.same_patient} share a patient" if leak.patients_known else "patients are not known"
        if 0 < leak.patients_known < leak.images:
            patients += f" (not known of {leak.images - leak.patients_known})"
        parts.append(f"of {leak.images} {split} images, {leak.copies} have a copy in {seen} and {patients}")
    return "; ".join(parts)


def _characteristics(manifest: pd.DataFrame) -> str:
    """Sex, view and age of the images of each split, where the data have them."""
    parts = []
    for split in ("train", "val", "test"):
        rows = manifest[manifest["split"] == split]
        known = [
            f"{name} " + ", ".join(f"{value} {n}" for value, n in rows[name].value_counts().items())
            for name in ("sex", "view")
            if name in rows and rows[name].notna().any()
        ]
        ages = pd.to_numeric(rows["age"], errors="coerce") if "age" in rows else pd.Series(dtype=float)
        known += [f"median age {ages.median():.0f} (known of {ages.notna().sum()})"] if ages.notna().any() else []
        parts += [f"{split}: {'; '.join(known)}"] if known else []
    return ". ".join(parts)


def _phases(phases: Sequence[PhaseResult]) -> str:
    parts = []
    for phase in phases:
        decay = f", weight decay over all of them: {phase.decay:g}" if phase.decay else ""
        parts.append(
            f"phase {phase.name} (trainable: {phase.trainable}, parameters: {phase.trained_parameters:,}, "
            f"learning rate: {phase.lr:g}, epochs: {phase.epochs}{decay})"
        )
    return ", then ".join(parts)


def _augmentation(config: Mapping[str, Any], phases: Sequence[PhaseResult]) -> str:
    """How training images were augmented, and in which phases not."""
    if not config["augment"]:
        return "none"
    frozen = [phase.name for phase in phases if phase.trainable == "head"] if config["schedule"]["views"] == 1 else []
    if len(frozen) == len(phases):
        return "none, as the head was trained on the images themselves (schedule.views=1)"
    left_out = f", but not in phase {', '.join(frozen)}, on the images themselves" if frozen else ""
    return f"{_call(config['augment'])}{left_out}"


def _choice(kept: PhaseResult, monitor: str) -> str:
    """Which epoch the final weights are from."""
    if kept.keep == "last":
        return f"the last epoch of phase {kept.name}, and {monitor} on the validation images"
    return f"the epoch of phase {kept.name} with the best {monitor} on the validation images"


def _call(node: Mapping[str, Any]) -> str:
    """Write a part of the configuration as a call: ``Adam(weight_decay=0.0)``."""
    if "_target_" not in node:
        return ", ".join(f"{name}={value}" for name, value in node.items())
    settings = ", ".join(f"{name}={value}" for name, value in node.items() if not name.startswith("_"))
    return f"{node['_target_'].rpartition('.')[2]}({settings})"
