"""The facts of a run, of a real network."""

import json

from cxrnet.models.backbones.weights import LoadedWeights
from cxrnet.training.phases import PhaseResult
from cxrnet.workflows.run_facts import RUN_FACTS, read_run_facts, write_facts_of_all, write_run_facts


def test_what_is_written_can_be_read(make_network, tmp_path):
    network = make_network()
    phase = PhaseResult("head", "head", 387, 0.001, 2.0, True, 1, 5, "best", 4, 0.25, 12.5, kept=True)
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


def test_of_several_runs_what_all_share_and_all_phases(make_network, tmp_path):
    for name, origin, seconds in (("one", "file", 2.0), ("two", "random", 3.0)):
        (tmp_path / name).mkdir()
        phase = PhaseResult("head", "head", 387, 0.001, 2.0, True, 1, 5, "best", 4, 0.25, seconds, kept=True)
        write_run_facts(tmp_path / name, make_network(), LoadedWeights(origin, "x"), [phase], ["python"])
    write_facts_of_all(tmp_path, [tmp_path / "one", tmp_path / "two"], ["python", "-m", "x"])
    facts = read_run_facts(tmp_path)
    assert facts["parameters"] == read_run_facts(tmp_path / "one")["parameters"]
    assert "weights" not in facts
    assert (facts["runs"], facts["command"]) == (["one", "two"], ["python", "-m", "x"])
    assert [(phase["run"], phase["name"], phase["seconds"]) for phase in facts["phases"]] == [
        ("one", "head", 2.0),
        ("two", "head", 3.0),
    ]
