import pytest
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from cxrnet.core.config import flat, plain_config, read_config, write_config
from cxrnet.errors import CxrnetError

CONFIG = {"seed": 0, "lr": 1e-30, "none": None, "empty": {}, "phases": [{"name": "head", "lr": 0.1}], "size": [3, 4]}


def test_interpolations_are_resolved():
    assert plain_config(OmegaConf.create({"seed": 3, "data": {"seed": "${seed}"}})) == {"seed": 3, "data": {"seed": 3}}
    with pytest.raises(MissingMandatoryValue):
        plain_config(OmegaConf.create({"root": "???"}))


def test_phases_are_named_in_dotted_names():
    assert flat(CONFIG) == {
        "seed": 0, "lr": 1e-30, "none": None, "phases.head.name": "head", "phases.head.lr": 0.1, "size": [3, 4],
    }  # fmt: skip


def test_each_start_keeps_its_configuration(tmp_path):
    assert read_config(tmp_path) is None
    names = []
    for start in range(12):
        names.append(write_config(tmp_path, {**CONFIG, "start": start}).name)
        assert read_config(tmp_path) == {**CONFIG, "start": start}
    assert names[:2] + names[-1:] == ["config.yaml", "config.resumed-1.yaml", "config.resumed-11.yaml"]
    assert len(list(tmp_path.iterdir())) == 12


@pytest.mark.parametrize(
    "text", ["seed: ${oc.env:HOME}", "a: [{b: 'x ${c}'}]", "a: [", "- 1", "\0", "3", "a: !!python/name:os.system"]
)
def test_a_strangers_file_is_not_resolved_and_must_hold_a_configuration(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(CxrnetError, match=r"config.yaml' (holds \$\{...\}|is no configuration|can.t be read)"):
        read_config(tmp_path)
