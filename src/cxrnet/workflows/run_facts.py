"""``run_facts.json`` in a run's folder: what a run was, for whoever compares it with others.

It holds what neither the configuration nor the results tell: how large the network is, where its weights came from, how
long each phase took, and the command.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrnet.core.atomic import write_json

if TYPE_CHECKING:
    from cxrnet.models.backbones.weights import LoadedWeights
    from cxrnet.models.network import Network
    from cxrnet.training.phases import PhaseResult


RUN_FACTS = "run_facts.json"


def write_run_facts(
    folder: Path,
    network: "Network",
    weights: "LoadedWeights",
    phases: Sequence["PhaseResult"],
    command: Sequence[str],
) -> None:
    """Write the facts of a run, whole or not at all.

    Args:
        folder: of the run.
        network: trained or not.
        weights: that it started from.
        phases: all that were trained.
        command: that makes the run.
    """
    from cxrnet.models.network import count_parameters  # reading the facts needs no torch

    facts = {
        "parameters": count_parameters(network).total,
        "weights": asdict(weights),
        "phases": [asdict(phase) for phase in phases],
        "command": list(command),
    }
    write_json(folder / RUN_FACTS, facts)


def write_facts_of_all(folder: Path, runs: Sequence[Path], command: Sequence[str]) -> None:
    """Write the facts of a run over folds or seeds: what is the same in all of its runs, and all of their phases.

    Args:
        folder: of the run.
        runs: the folders of the runs in it, each with its facts.
        command: that makes all of them.
    """
    first, *others = found = [read_run_facts(run) for run in runs]
    common = {name: first[name] for name in ("parameters", "weights") if all(o[name] == first[name] for o in others)}
    phases = [{"run": run.name, **phase} for run, each in zip(runs, found, strict=True) for phase in each["phases"]]
    facts = {**common, "runs": [run.name for run in runs], "phases": phases, "command": list(command)}
    write_json(folder / RUN_FACTS, facts)


def read_run_facts(folder: Path) -> dict[str, Any]:
    """The facts of a run; empty where there are none."""
    file = folder / RUN_FACTS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
