from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cxrnet.cli.app import config_folder
from cxrnet.cli.command_line import typed_words
from cxrnet.core.config import plain_config
from cxrnet.errors import CxrnetError


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
        (["data.classes=[0,1]"], "data.classes", ["0", "1"]),
        (["data.classes=['true',01,1.5]"], "data.classes", ["true", "01", "1.5"]),
    ],
)  # fmt: skip
def test_a_mapping_given_is_the_mapping_used_and_names_are_text(words, place, mapping):
    value = composed(*words)
    for part in place.split("."):
        value = value[part]
    assert value == mapping


def test_groups_of_settings_still_merge():
    assert set(composed("evaluation={resamples: 100}")["evaluation"]) == set(composed()["evaluation"])


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
