import re
import sys

import pandas as pd
import pytest

from cxrnet.core.config import write_config
from cxrnet.data.manifest import digest, make_manifest, write_manifest
from cxrnet.errors import CxrnetError
from cxrnet.tracking.record import start_of, write_record
from cxrnet.train import main
from cxrnet.workflows.resume import COMMAND, check_resumable, check_same_data, is_finished, resumed_arguments

CONFIG = {
    "seed": 0,
    "finetune": None,
    "data": {"root": "here", "manifest": {"root": "here"}, "size": [3, 4], "num_workers": 0},
    "model": {"backbone": "vgg16"},
    "schedule": {
        "monitor": "val/loss",
        "max_epochs": 3,
        "phases": [{"name": "head", "epochs": 3, "solver": "gradient"}],
    },
    "trainer": {"devices": 1},
    "cache": "here",
}


def run(folder, *words, **record):
    write_record(folder, {**start_of([*COMMAND, *words]), **record})
    return folder


def rewritten(folder, *words):
    *line, place, subfolder = resumed_arguments([*words, f"resume={folder}"])
    assert place == f"hydra.run.dir='{folder}'"
    assert subfolder == "hydra.output_subdir=null"
    assert line.pop() == f"resume={folder}"
    return line


# --- the command line


def test_a_run_goes_on_with_its_own_command_line(tmp_path):
    run(tmp_path, "model=vgg16", "data.root=my xrays", "+finetune=true")
    assert rewritten(tmp_path) == ["model=vgg16", "data.root=my xrays", "+finetune=true"]


def test_a_new_word_takes_the_place_of_the_one_with_its_key(tmp_path):
    run(tmp_path, "+finetune=true", "seed=1", "~folds")
    assert rewritten(tmp_path, "+finetune=true", "++seed=2") == ["~folds", "+finetune=true", "++seed=2"]


def test_a_new_option_takes_the_place_of_what_was_said_of_the_old_one(tmp_path):
    run(tmp_path, "trainer=cpu", "trainer.devices=2", "trainers=3")
    assert rewritten(tmp_path, "trainer=gpu") == ["trainers=3", "trainer=gpu"]


def test_the_last_command_counts(tmp_path):
    run(tmp_path, "seed=1", resumptions=[start_of([*COMMAND, "seed=2"]), start_of([*COMMAND, "seed=3"])])
    assert rewritten(tmp_path) == ["seed=3"]


def test_rewriting_again_changes_nothing(tmp_path):
    # Lightning starts the other processes of a distributed training with the line of the first one.
    run(tmp_path, "+finetune=true")
    once = resumed_arguments([f"resume={tmp_path}"])
    assert set(resumed_arguments(once)) == set(once)
    assert resumed_arguments(once).count("+finetune=true") == 1


def test_a_folder_with_an_apostrophe(tmp_path):
    folder = run(tmp_path / "it's")
    assert resumed_arguments([f"resume='{tmp_path}/it\\'s'"])[-2] == f"hydra.run.dir='{folder}'".replace("t's", "t\\'s")


@pytest.mark.parametrize("words", [[], ["seed=1"], ["resume=null"], ["--help"], ["resume=a=b"]])
def test_without_a_folder_the_line_stays(words):
    assert resumed_arguments(words) == words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resume={0}/no"], "resume: '{0}/no' is not a folder; give that of a run, as outputs/runs/<time>_<name>"),
        (["resume="], "resume: no folder is given; give that of a run, as outputs/runs/<time>_<name>"),
        (
            ["resume={0}"],
            "resume: '{0}' holds no run of cxrnet.train (no run.json of one); give that of a run or a sweep",
        ),
        (["resume={0}", "-m"], "resume: one run goes on at a time; leave -m out"),
        (["resume={0},{0}"], "resume: one run or sweep goes on at a time; give one folder"),
    ],
)
@pytest.mark.parametrize("record", [None, {"command": ["python", "-m", "cxrnet.predict"]}, {"status": "FINISHED"}])
def test_a_line_that_cannot_be_gone_on_with(tmp_path, words, message, record):
    if record is not None:
        write_record(tmp_path, record)
    with pytest.raises(CxrnetError) as caught:
        resumed_arguments([word.format(tmp_path) for word in words])
    assert str(caught.value) == message.format(tmp_path)


SWEEP = ["--multirun", "model=vgg16,resnet50", "seed=range(3)", "hydra/launcher=joblib", "hydra.launcher.n_jobs=4"]


SEARCH = ["--multirun", "+search=head", "model.dropout=tag(log,interval(0.1,0.5))", "hydra/sweeper=optuna"]


@pytest.mark.parametrize("words", [SWEEP, [*SEARCH, "hydra.sweeper.n_trials=100"]])
def test_a_sweep_goes_on_with_its_own_line_in_its_own_folder(tmp_path, words):
    folder = run(tmp_path, *words)
    line = resumed_arguments([f"resume={folder}", "-m", "trainer=cpu"])
    assert line == [*words, f"resume={folder}", "trainer=cpu", f"hydra.sweep.dir='{folder}'"]


@pytest.mark.parametrize(
    "word",
    [
        *("optimizer._target_=torch.optim.Adam,os.system", "data=phantom,../../evil", "hydra.launcher.setup=[rm]"),
        "optimizer._target_=interval(1,2)",
        *("hydra/launcher=../evil", "hydra.sweeper.params.optimizer._target_=os.system", "+hydra.callbacks.x=1"),
    ],
)
def test_the_record_of_a_sweep_is_trusted_no_more_than_that_of_a_run(tmp_path, word):
    with pytest.raises(CxrnetError, match=r"resume: run\.json holds"):
        resumed_arguments([f"resume={run(tmp_path, '--multirun', word)}"])


# --- what of it is taken from a file

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
                    "cxrnet.cli.run_folder.OwnFolder",
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
def test_what_runs_code_or_reaches_outside_is_not_taken_from_a_file(tmp_path, word, reason):
    run(tmp_path, "seed=1", word)
    with pytest.raises(CxrnetError, match=rf"^resume: run.json holds .*, which {reason}.*; if you trust it, type it"):
        resumed_arguments([f"resume={tmp_path}"])


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
def test_what_a_run_is_made_of_is_taken(tmp_path, word):
    run(tmp_path, word)
    assert rewritten(tmp_path) == [word]


def test_who_types_it_again_gets_it(tmp_path):
    run(tmp_path, "optimizer._target_=mine.Optimizer", "seed=1")
    with pytest.raises(CxrnetError, match=r"'optimizer._target_=mine.Optimizer', which calls mine.Optimizer"):
        resumed_arguments([f"resume={tmp_path}"])
    line = resumed_arguments([f"resume={tmp_path}", "optimizer._target_=mine.Optimizer"])
    assert line[:3] == ["seed=1", f"resume={tmp_path}", "optimizer._target_=mine.Optimizer"]


@pytest.mark.parametrize("record", ['{"command": 3}', '{"resumptions": ["x"]}', '{"command": {"a": 1}}', "[]", "{"])
def test_a_record_that_is_none(tmp_path, record):
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(CxrnetError, match="holds no run of cxrnet"):
        resumed_arguments([f"resume={tmp_path}"])


# --- the configuration


def changed(**groups):
    return {**CONFIG, **{name: {**CONFIG[name], **values} for name, values in groups.items()}}


def test_what_may_change_is_told(tmp_path):
    write_config(tmp_path, CONFIG)
    data = {"root": "there", "manifest": {"root": "there"}, "num_workers": 2}
    config = {**changed(trainer={"devices": 2}, data=data, schedule={"max_epochs": 9}), "cache": "there"}
    assert check_resumable(tmp_path, config) == [
        "cache: here -> there",
        "data.manifest.root: here -> there",
        "data.num_workers: 0 -> 2",
        "data.root: here -> there",
        "schedule.max_epochs: 3 -> 9",
        "trainer.devices: 1 -> 2",
    ]


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({**CONFIG, "seed": 1}, "seed was 0 and would be 1 now; a run goes on as it began: give seed=0, or start a"),
        (changed(model={"backbone": "resnet50"}), "model.backbone was vgg16 and would be resnet50 now"),
        (changed(data={"size": [4, 4]}), r"data.size was \[3, 4\] and would be \[4, 4\] now"),
        (changed(schedule={"monitor": "val/accuracy"}), "schedule.monitor was val/loss and would be val/accuracy now"),
        ({**CONFIG, "sampler": "balanced"}, "the run began without sampler"),
    ],
)
def test_what_must_stay(tmp_path, config, line):
    write_config(tmp_path, CONFIG)
    with pytest.raises(CxrnetError, match=f"^resume: {line}"):
        check_resumable(tmp_path, config)


@pytest.mark.parametrize(
    ("began", "key"),
    [
        ({**CONFIG, "refer": 0.2}, "refer"),
        (changed(schedule={"monitor": "val_loss"}), "schedule.monitor=val_loss"),
        (changed(schedule={"phases": [{"name": "head", "epoch": 3}]}), "schedule.phases.epoch"),
    ],
)
def test_a_run_of_another_version(tmp_path, began, key):
    write_config(tmp_path, began)
    with pytest.raises(CxrnetError, match=rf"^resume: .* another version of cxrnet, whose keys differ \({key}\)"):
        check_resumable(tmp_path, {**CONFIG, "seed": 1})


@pytest.mark.parametrize("word", ["refer=0.2", "+evaluation.refer=0.2"])
def test_a_word_of_another_version(tmp_path, monkeypatch, capsys, word):
    run(tmp_path, word)
    for words, said in (
        ([], "resume: .* another version of cxrnet"),
        ([word], "(evaluation.)?refer: no such key"),
    ):
        monkeypatch.setattr(sys, "argv", ["train", f"resume={tmp_path}", *words])
        with pytest.raises(SystemExit):
            main()
        assert re.search(f"error: {said}", capsys.readouterr().err)


def test_a_finished_run_needs_more_to_do(tmp_path):
    write_config(tmp_path, CONFIG)
    write_record(tmp_path, {"status": "FINISHED"})
    more = changed(schedule={"phases": [*CONFIG["schedule"]["phases"], {"name": "tune", "epochs": 1}]})
    assert len(check_resumable(tmp_path, more)) == 2
    with pytest.raises(
        CxrnetError, match=r"is finished; give it more to do, as finetune=true or a larger schedule.max"
    ):
        check_resumable(tmp_path, changed(trainer={"devices": 2}))


def test_a_run_that_was_killed_before_its_configuration_was_written_goes_on_from_its_start(tmp_path):
    assert check_resumable(tmp_path, CONFIG) == []


BEFORE = [{"name": "finetune", "epochs": 8}]  # as a version without `solver` wrote a phase
NOW = [{"name": "finetune", "epochs": 8, "solver": "gradient"}]


def test_a_head_that_a_version_without_solvers_began_goes_on_by_gradient(tmp_path):
    write_config(tmp_path, changed(schedule={"head": {"name": "head", "epochs": 30}, "phases": BEFORE}))
    run(tmp_path, "seed=1", status="FINISHED")
    assert rewritten(tmp_path) == ["seed=1", "schedule.head.solver=gradient"]
    assert rewritten(tmp_path, "schedule=full") == ["seed=1", "schedule=full"]
    head = {"name": "head", "epochs": 30, "solver": "gradient"}
    with pytest.raises(CxrnetError, match="is finished"):
        check_resumable(tmp_path, changed(schedule={"head": head, "phases": NOW}))
    write_config(tmp_path, changed(schedule={"head": head, "phases": NOW}))
    assert rewritten(tmp_path) == ["seed=1"]


# --- the data


def test_the_data_must_be_the_same(tmp_path):
    def manifest(**changes):
        columns = {"image_id": ["a", "b"], "path": ["a.png", "b.png"], "label": ["x", "y"], "split": ["train", "test"]}
        return make_manifest(pd.DataFrame({**columns, "source": "s", "sha256": ["1", "2"], **changes}), "here")

    check_same_data(tmp_path, digest(manifest()))  # nothing had been read yet
    write_manifest(manifest(), tmp_path / "manifest.parquet")
    check_same_data(tmp_path, digest(manifest()))
    check_same_data(tmp_path, digest(manifest(path=["elsewhere/a.png", "elsewhere/b.png"])))
    for change in ({"sha256": ["1", "3"]}, {"split": ["test", "train"]}, {"label": ["x", "z"]}):
        with pytest.raises(CxrnetError, match=r"resume: the data have changed: .* than the 2 rows"):
            check_same_data(tmp_path, digest(manifest(**change)))


@pytest.mark.parametrize(
    ("began", "now", "finished"),
    [
        ({}, {}, True),
        ({}, {"trainer": {"devices": 2}}, True),
        ({}, {"defer": 0.1}, False),
        ({}, {"loss": "focal"}, False),  # another run, which is refused where it would go on
        ({"test": False}, {"test": True}, False),
        ({"test": True}, {"test": False}, True),  # the best job of a search, when its sweep is resumed
    ],
)
def test_a_finished_job_is_run_again_only_where_it_has_more_to_do(tmp_path, began, now, finished):
    usual = {"seed": 0, "loss": "cross_entropy", "defer": None, "test": True, "trainer": {"devices": 1}}
    write_config(tmp_path, {**usual, **began})
    write_record(tmp_path, {"status": "FINISHED"})
    assert is_finished(tmp_path, {**usual, **now}) == finished
