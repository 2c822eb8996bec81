import pandas as pd
import pytest

from cxrnet.core.config import write_config
from cxrnet.data.manifest import make_manifest, write_manifest
from cxrnet.errors import CxrnetError
from cxrnet.tracking.record import start_of, write_record
from cxrnet.workflows.resume import COMMAND, check_resumable, check_same_data, resumed_arguments, without_resume

CONFIG = {
    "seed": 0,
    "finetune": None,
    "data": {"root": "here", "manifest": {"root": "here"}, "size": [3, 4], "num_workers": 0},
    "model": {"backbone": "vgg16"},
    "schedule": {"monitor": "val/loss", "max_epochs": 3, "phases": [{"name": "head", "epochs": 3}]},
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


@pytest.mark.parametrize("words", [[], ["seed=1"], ["resume=null"], ["resume="], ["--help"], ["resume=a=b"]])
def test_without_a_folder_the_line_stays(words):
    assert resumed_arguments(words) == words


def test_the_command_without_resume():
    assert without_resume(["seed=1", "+resume=a", "resumed=2"]) == ["seed=1", "resumed=2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resume={0}/no"], "resume: '{0}/no' is not a folder; give that of a run, as outputs/runs/<time>_<name>"),
        (["resume={0}"], "resume: '{0}' holds no run of cxrnet.train (no run.json of one); give the folder of a run"),
        (["resume={0}", "-m"], "resume: one run goes on at a time; leave -m out"),
        (["resume={0},{0}"], "resume: one run goes on at a time; give one folder"),
    ],
)
@pytest.mark.parametrize("record", [None, {"command": ["python", "-m", "cxrnet.predict"]}, {"status": "FINISHED"}])
def test_a_line_that_cannot_be_gone_on_with(tmp_path, words, message, record):
    if record is not None:
        write_record(tmp_path, record)
    with pytest.raises(CxrnetError) as caught:
        resumed_arguments([word.format(tmp_path) for word in words])
    assert str(caught.value) == message.format(tmp_path)


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


def test_a_finished_run_needs_more_to_do(tmp_path):
    write_config(tmp_path, CONFIG)
    write_record(tmp_path, {"status": "FINISHED"})
    more = changed(schedule={"phases": [{"name": "head", "epochs": 3}, {"name": "tune", "epochs": 1}]})
    assert len(check_resumable(tmp_path, more)) == 2
    with pytest.raises(
        CxrnetError, match=r"is finished; give it more to do, as finetune=true or a larger schedule.max"
    ):
        check_resumable(tmp_path, changed(trainer={"devices": 2}))


def test_the_last_configuration_counts(tmp_path):
    write_config(tmp_path, CONFIG)
    write_config(tmp_path, changed(schedule={"max_epochs": 9}))
    assert check_resumable(tmp_path, CONFIG) == ["schedule.max_epochs: 9 -> 3"]


def test_a_run_that_was_killed_before_its_configuration_was_written_goes_on_from_its_start(tmp_path):
    assert check_resumable(tmp_path, CONFIG) == []


# --- the data


def test_the_data_must_be_the_same(tmp_path):
    def manifest(**changes):
        columns = {"image_id": ["a", "b"], "path": ["a.png", "b.png"], "label": ["x", "y"], "split": ["train", "test"]}
        return make_manifest(pd.DataFrame({**columns, "source": "s", "sha256": ["1", "2"], **changes}), "here")

    check_same_data(tmp_path, manifest())  # nothing had been read yet
    write_manifest(manifest(), tmp_path / "manifest.parquet")
    check_same_data(tmp_path, manifest())
    check_same_data(tmp_path, manifest(path=["elsewhere/a.png", "elsewhere/b.png"]))
    for change in ({"sha256": ["1", "3"]}, {"split": ["test", "train"]}, {"label": ["x", "z"]}):
        with pytest.raises(
            CxrnetError, match=r"resume: the data have changed: .* than the 2 rows of .*; put them back, or"
        ):
            check_same_data(tmp_path, manifest(**change))
