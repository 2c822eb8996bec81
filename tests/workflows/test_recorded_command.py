import pytest

from cxrnet.cli.app import config_folder
from cxrnet.errors import CxrnetError
from cxrnet.tracking.record import start_of, write_record
from cxrnet.workflows.recorded_command import check_recorded
from cxrnet.workflows.resume import COMMAND, resumed_arguments

CALLED = "calls .*, not a part of cxrnet, torch"
REFUSED = {
    "changes Hydra": (
        *("+hydra.callbacks.x._target_=pandas.read_pickle", "hydra/launcher=x", "hydra.searchpath=[pkg://x]"),
        *("~hydra.callbacks", "++hydra.job.chdir=1", "+data@hydra.callbacks.x=phantom", "+hydra@x=y"),
    ),
    "is no key=value": ("--config-dir=/tmp", "-cn", "a", "a=[", 3, None, {"a": 1}),
    "gives several values": ("seed=0,1",),
    "asks for something outside": (
        *("tracking.experiment=${oc.env:HOME}", "outputs='${now:%Y}'", "outputs='${a.${oc.env:HOME}}'"),
        "data.classes=[a, {b: '${oc.env:HOME}'}]",
        *("tracking.uri='http://x/${${outputs}:HOME}'", "+a=['${${outputs}:{_target_:pandas.read_pickle}}']"),
        *("outputs='${a${b}}'", "outputs='$${a}{oc.env:HOME}'", "outputs='${a:b'"),
    ),
    "names a file": (
        *("data=../../tmp/evil", "data=/tmp/evil", "data='a\\b'", "data=${mine}", "experiment=[demo,../../evil]"),
    ),
    CALLED: (
        *(
            f"optimizer._target_={name}"
            for name in (
                *("pandas.read_pickle", "os.system", "torch.load", "'3'", "null", "[os.system]", "${mine}"),
                *("torch.hub.load", "torch.os.system", "torch.utils.cpp_extension.load", "torch.nn.modules.os.system"),
                *("torch.optim.Adam.load", "builtins.eval", "functools.partial", "hydra.utils.get_method"),
                *(
                    "cxrnet.models.backbones.weights.torch.load",
                    "cxrnet.workflows.sweep.SideBySide",
                    "cxrnet.train.main",
                ),
            )
        ),
        "+callbacks.a={_target_: os.system, command: ls}",
        "+callbacks={a: {b: [[{_args_: [ls], _partial_: true, _target_: os.system}]]}}",
        "+callbacks.a={_target_: torch.nn.ReLU, inplace: {_target_: os.system}}",
    ),
}


@pytest.mark.parametrize(("reason", "word"), [(reason, word) for reason, words in REFUSED.items() for word in words])
def test_what_runs_code_or_reaches_outside_is_not_taken_from_a_file(word, reason):
    with pytest.raises(CxrnetError, match=rf"^resume: run.json holds .*, which {reason}.*; if you trust it, type it"):
        check_recorded(["seed=1", word], config_folder())


@pytest.mark.parametrize(
    "word",
    [
        *("model=vgg16", "data.root=/some/where", "data.root='/it\\'s: here'", "outputs=../elsewhere", "cache=/tmp/c"),
        *("~folds", "experiment=[demo]", "++schedule.max_epochs=3", "+operating_points={ab: 0.5}", "a.b=2"),
        *("data.limit=${mine}", "+mine=7", "data.split.fractions={train: 0.8, val: 0.2}", "finetune=true"),
        *("optimizer._target_=torch.optim.RMSprop", "+logger.a={_target_: lightning.pytorch.loggers.CSVLogger}"),
        *("augment._target_=cxrnet.data.augment.geometric", "trainer._target_=lightning.pytorch.Trainer"),
        *("callbacks=[lr_monitor,weight_averaging]", "callbacks.a={_target_: cxrnet.training.additions.MovingAverage}"),
    ],
)  # fmt: skip
def test_what_a_run_is_made_of_is_taken(word):
    check_recorded([word], config_folder())


def test_who_types_it_again_gets_it(tmp_path):
    write_record(tmp_path, start_of([*COMMAND, "optimizer._target_=mine.Optimizer", "seed=1"]))
    with pytest.raises(CxrnetError, match=r"'optimizer._target_=mine.Optimizer', which calls mine.Optimizer"):
        resumed_arguments([f"resume={tmp_path}"])
    line = resumed_arguments([f"resume={tmp_path}", "optimizer._target_=mine.Optimizer"])
    assert line[:3] == ["seed=1", f"resume={tmp_path}", "optimizer._target_=mine.Optimizer"]


@pytest.mark.parametrize("record", ['{"command": 3}', '{"resumptions": ["x"]}', '{"command": {"a": 1}}', "[]", "{"])
def test_a_record_that_is_none(tmp_path, record):
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(CxrnetError, match="holds no run of cxrnet"):
        resumed_arguments([f"resume={tmp_path}"])
