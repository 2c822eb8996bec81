import logging
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cxrnet.cli.app import compose_config, config_folder
from cxrnet.cli.command_line import REFUSALS, check_keys, explain, typed_words
from cxrnet.core.config import plain_config
from cxrnet.errors import CxrnetError
from cxrnet.workflows.settings import COMMANDS, Compare, Evaluate, Prepare, Train


def composed(*words, config="train"):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return plain_config(compose(config, typed_words(list(words))))


@pytest.fixture(autouse=True)
def home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    ("word", "root"),
    [
        ("data.root=~/xrays", "/home/me/xrays"),
        ("data.root=~", "/home/me"),
        ("data.root='~/my xrays'", "/home/me/my xrays"),
        ('data.root="~/xrays"', "/home/me/xrays"),
        ("data.root=~root/xrays", f"{Path('~root').expanduser()}/xrays"),
        ("data.root=/x~/a~b/~c", "/x~/a~b/~c"),
        ("data.root=x~", "x~"),
    ],
)
def test_home_folders(word, root):
    if root == "/x~/a~b/~c" or root == "x~":
        assert typed_words([word]) == [word]
    else:
        assert composed("data=folder", word)["data"]["root"] == root


def test_home_folders_in_sweeps_lists_and_other_commands():
    assert typed_words(["-m", "data.root=~/a,~/b"]) == ["-m", "data.root=/home/me/a,/home/me/b"]
    assert typed_words(["x=[~/a,~/b]", "~data.parts", "resume=~/run"]) == [
        "x=[/home/me/a,/home/me/b]", "~data.parts", "resume=/home/me/run",
    ]  # fmt: skip
    predict = composed("bundle=~/b", "input=~/x.png", "output=~/p.csv", config="predict")
    assert [predict[key] for key in ("bundle", "input", "output")] == [f"/home/me/{n}" for n in ("b", "x.png", "p.csv")]


@pytest.mark.parametrize(
    ("words", "place", "mapping"),
    [
        (["data.split.fractions={train: 0.85, val: 0.15}"], "data.split.fractions", {"train": 0.85, "val": 0.15}),
        (["data=labelled_names", "data.root=x", "data.manifest.labels={0: normal, 1: covid}"], "data.manifest.labels",
         {"0": "normal", "1": "covid"}),
        (["data=labelled_names", "data.root=x", "data.manifest={folders: {a: train}}"], "data.manifest.folders",
         {"a": "train"}),
        (["data=covid_chestxray", "data.manifest.findings={sick: [x]}"], "data.manifest.findings", {"sick": ["x"]}),
        (["experiment=detector_vgg19", "operating_points={normal: 0.6}"], "operating_points", {"normal": 0.6}),
        (["operating_points={1: 0.7}"], "operating_points", {"1": 0.7}),
        (["loss.class_weights={1: 2}"], "loss.class_weights", {"1": 2}),
        (["loss=cost_sensitive", "loss.costs={0: {1: 2}}"], "loss.costs", {"0": {"1": 2}}),
        (["data.split.fractions={train: 1.0}", "+data.split.fractions.val=0.5"], "data.split.fractions",
         {"train": 1.0, "val": 0.5}),
        (["data=labelled_names", "data.root=x", "+data.manifest.labels={viral: v}"], "data.manifest.labels",
         {"covid": "covid", "normal": "normal", "viral": "v"}),
        (["schedule.head.lr_schedule={name: plateau, factor: 0.5, patience: 2}"], "schedule.head.lr_schedule",
         {"name": "plateau", "factor": 0.5, "patience": 2}),
        (["data.classes=[0,1]"], "data.classes", ["0", "1"]),
        (["data.classes=['true',01,1.5]"], "data.classes", ["true", "01", "1.5"]),
    ],
)  # fmt: skip
def test_a_mapping_given_is_the_mapping_used_and_names_are_text(words, place, mapping):
    value = composed(*words)
    for part in place.split("."):
        value = value[part]
    assert value == mapping


def test_the_mapping_used_is_that_of_each_job_of_a_sweep_and_is_taken_once():
    words = ["data.split.fractions={train: 0.8, val: 0.2},{train: 0.9, val: 0.1}"]
    assert typed_words(["-m", *words]) == ["-m", "data.split.fractions=null", f"+{words[0]}"]
    once = typed_words(["data.split.fractions={train: 0.8, val: 0.2}"])
    assert typed_words(once) == once  # as when a run is resumed


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["data.classes=[true,false]"], "data.classes: true"),
        (["data.classes=[a,null]"], "data.classes: null"),
        (["operating_points={true: 0.7}"], "operating_points: true"),
    ],
)
def test_truth_values_are_no_names(words, key):
    with pytest.raises(CxrnetError, match=f"^{key} is read as .* not as a name; quote it"):
        composed(*words)


def refused(*arguments: str, configs=None, command="train") -> str:
    folder = configs or config_folder()
    with pytest.raises(REFUSALS) as caught, initialize_config_dir(str(folder), version_base="1.3"):
        compose(command, list(arguments), return_hydra_config=True)
    line = explain(caught.value, folder, command, arguments)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("model=resnet999", "model=resnet999: there is no such option; choose one of "),
        ("model=3", "model=3: there is no such option; choose one of "),
        ("callbacks=early_stopping", "callbacks=early_stopping: there is no such option; choose one of "),
        ("experiment=[demo,nope]", "experiment=nope: there is no such option; choose one of "),
        ("hydra/launcher=nope", "hydra/launcher=nope: there is no such option; choose one of basic"),
        ("modle=vgg16", "modle: no such key; did you mean model?"),
        ("data.batchs=3", "data.batchs: no such key; did you mean data.batch_size?"),
        ("batch_size=3", "batch_size: no such key; did you mean data.batch_size?"),
        ("data.limit.x=3", "data.limit.x: no such key; "),
        ("data={foo: 1}", "data.foo: no such key; "),
        ("nothing.like.it=1", "nothing.like.it: no such key; --help shows all"),
        ("optimizer.lr=1", "optimizer.lr: no such key; did you mean schedule.head.lr or schedule.phases.0.lr or "),
        ("optimizer.amsgrat=1", "optimizer.amsgrat: no such key; --help shows all (+optimizer.amsgrat=1 would add it)"),
        ("trainer.max_epochs=2", "trainer.max_epochs: the schedule says how long each phase trains; give schedule."),
        ("trainer.max_epoch=2", "trainer.max_epoch: a Trainer has no such argument; max_epochs: the schedule "),
        ("seed", "seed: not of the form key=value; --help shows the keys"),
        ("data.size=[1", "data.size=[1: can't be read; close its brackets and quotes, or quote the whole value: '"),
        ("outputs=my runs (x)", "outputs=my runs (x): can't be read; close its brackets and quotes, or quote"),
        ("seed=int(x)", "seed=int(x): invalid literal for int() with base 10: 'x'"),
        ("seed=1,2", "seed=1,2: several values; to run one after the other add -m, for a list write seed=[1,2]"),
        ("seed=range(1,3)", "seed=range(1,3): several values; to run one after the other add -m"),
        ("+seed=3", "+seed=3: seed is there already; leave the + out: seed=3"),
        ("+experiment=demo", "+experiment=demo: experiment is there already; leave the + out: experiment=demo"),
        ("~foo", "~foo: Could not delete from config. 'foo' does not exist."),
        ("hydra.job.num=abc", "hydra.job.num=abc: Value 'abc' of type 'str' could not be converted to Integer"),
        ("schedule.views=abc", "schedule.views=abc: Value 'abc' of type 'str' could not be converted to Integer"),
        ("schedule.phases.0.epochs=2.5", "schedule.phases.0.epochs=2.5: Value '2.5' of type 'float' could not be conv"),
        ("evaluation.calibration.kind=equal", "evaluation.calibration.kind=equal: Invalid value 'equal', expected one"),
        ("data.size=224", "data.size=224: a list is needed; give data.size=[224,224]"),
        ("model.hidden=[1e400]", "model.hidden=[1e400]: "),
        ("data.classes=a", "data.classes=a: a list is needed; give data.classes=[a]"),
        ("evaluation.deferral=0.1", "evaluation.deferral=0.1: evaluation.deferral is a group of keys"),
        ("compile=maybe", "compile=maybe: Value 'maybe' is not a valid bool"),
        ("data.sampler=often", "data.sampler=often: Invalid value 'often', expected one of [shuffle, balanced]"),
    ],
)  # fmt: skip
def test_what_is_wrong_and_what_to_type(argument, line):
    assert refused("data.limit=3", argument, "finetune=true").startswith(line)


@pytest.mark.parametrize(
    ("words", "command", "line"),
    [
        (["bundle=x", "data.root=/o"], "evaluate", "data.root: data is null here; give data=<option> too: covid19"),
        (["schedule=full", "schedule.head.epochs=3"], "train", "schedule.head.epochs: schedule.head is null here; "),
        (["data.classes.0=a"], "train", "data.classes.0: data.classes is null here; give all of it, as data"),
        (["seeds.0=1"], "train", "seeds.0: seeds is null here; give all of it, as seeds=[1]"),
        (["runs.0=a"], "compare", "runs.0: runs is null here; give all of it, as runs=[a]"),
        (["folders.0=x"], "sync", "folders.0: folders is null here; "),
        (["seed=1", "seeds.0=1", "runs.0=1"], "train", "seeds.0: seeds is null here; "),
        (["schedule.phases.finetune.lr=1"], "train", "schedule.phases.finetune.lr: no such key; schedule.phases is a "
         "list of 1 here, numbered from 0; did you mean schedule.phases.0.lr?"),
        (["schedule.phases.1.epochs=3"], "train", "schedule.phases.1.epochs: no such key; schedule.phases is a list"),
        (["schedule=head", "schedule.phases.0.lr=3"], "train", "schedule.phases.0.lr: no such key; "),
    ],
)  # fmt: skip
def test_a_key_below_a_null_or_beyond_a_list(words, command, line):
    assert refused(*words, command=command).startswith(line)


def test_the_other_words_decide_which_keys_there_are():
    assert "did you mean optimizer.momentum?" in refused("optimizer=sgd", "optimizer.momentun=1")
    assert "did you mean optimizer.momentum?" not in refused("optimizer=adam", "optimizer.momentun=1")


def test_a_config_that_asks_for_an_option_that_is_not_there(tmp_path):
    (tmp_path / "train.yaml").write_text("defaults: [_self_, model: nope]\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "vgg16.yaml").write_text("a: 1\n")
    assert refused(configs=tmp_path) == "config: In 'train': Could not find 'model/nope'; choose one of vgg16"


def test_a_config_with_a_key_that_is_not_there(tmp_path):
    (tmp_path / "train.yaml").write_text("defaults: [train_schema, _self_]\nschedule: {vews: 3}\n")
    assert "Key 'vews' not in 'Schedule'" in refused(configs=tmp_path)


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (Train, ["+evaluation.foo=2"], r"^evaluation.foo: no such key; "),
        (Train, ["+evaluation.calibration.bin=2"], r"^evaluation.calibration.bin: .* evaluation.calibration.bins\?$"),
        (Train, ["+evaluation.operating_points={1: 0.7}"], r"^evaluation.operating_points: .* operating_points\?$"),
        (Train, ["model=vgg16", "+model.dropuot=0.1"], r"^model.dropuot: .* did you mean model.dropout\?$"),
        (Train, ["+schedule.scratch.foo=1"], r"^schedule.scratch.foo: no such key"),
        (Train, ["+schedule.phases.0.foo=1"], r"^schedule.phases.0.foo: no such key"),
        (Train, ["+trainer.max_epochs=1"], r"^trainer.max_epochs: .*give schedule.max_epochs"),
        (Compare, ["+tracking.url=3"], "^tracking.url: no such key; did you mean tracking.uri"),
        (Prepare, ["+sheet.perclass=3"], "^sheet.perclass: no such key; did you mean sheet.per_class"),
        (Evaluate, ["+tracking.foo=3"], "^tracking.foo: no such key"),
    ],
)  # fmt: skip
def test_an_added_key_that_nothing_reads_is_refused(command, words, message):
    with pytest.raises(CxrnetError, match=message):
        check_keys(compose_config(command, words))


@pytest.mark.parametrize(
    "words",
    [
        ["+optimizer.amsgrad=true", "data=folder", "data.root=x", "+data.known_issues.mine=[small]"],
        ["callbacks=[lr_monitor,weight_averaging]", "logger=csv", "+callbacks.mine={_target_: my.Callback}"],
        ["experiment=triage_mobilenet_v2_sensitive"],
    ],
)  # fmt: skip
def test_what_is_there_or_handed_on_is_taken_without_a_word(words, caplog):
    check_keys(compose_config(Train, words))
    assert not caplog.records


@pytest.mark.parametrize("command", COMMANDS)
def test_an_added_key_at_the_top_is_said(command, caplog):
    caplog.set_level(logging.WARNING, "cxrnet")
    check_keys(compose_config(command))
    assert not caplog.records
    check_keys(compose_config(command, ["+outputz=7"]))
    assert [text.partition(":")[0] for text in caplog.messages] == ["outputz"]
