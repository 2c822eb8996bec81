"""The facts of a run, of a real network."""

import json

from cxrnet.models.weights import LoadedWeights
from cxrnet.run_facts import RUN_FACTS, read_run_facts, write_run_facts
from cxrnet.training.phases import PhaseResult


def test_what_is_written_can_be_read(make_network, tmp_path):
    network = make_network()
    phase = PhaseResult("head", "head", 387, 0.001, True, 1, 5, 4, 0.25, 12.5, kept=True)
    write_run_facts(tmp_path, network, LoadedWeights("file", "a.safetensors"), [phase], ["python", "-m", "x"])
    facts = read_run_facts(tmp_path)
    assert facts["parameters"] == sum(p.numel() for p in network.parameters())
    assert facts["weights"]["origin"] == "file"
    assert facts["phases"][0]["seconds"] == 12.5
    assert facts["command"] == ["python", "-m", "x"]
    assert json.loads((tmp_path / RUN_FACTS).read_text()) == facts
    assert [file.name for file in tmp_path.iterdir()] == [RUN_FACTS]


def test_a_run_without_facts_has_none(tmp_path):
    assert read_run_facts(tmp_path) == {}
