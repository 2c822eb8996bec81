"""``run_facts.json`` in a run's folder: what a run was, for whoever compares it with others.

It holds what neither the configuration nor the results tell: how large the network is, where its weights came from, how
long each phase took, and the command.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxrnet.models.network import Network
    from cxrnet.models.weights import LoadedWeights
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
    partial = folder / f"{RUN_FACTS}.partial"
    partial.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(folder / RUN_FACTS)


def read_run_facts(folder: Path) -> dict[str, Any]:
    """The facts of a run; empty where there are none."""
    file = folder / RUN_FACTS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
