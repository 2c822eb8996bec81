import pytest
from hydra import compose, initialize_config_dir

from cxrnet.cli.app import config_folder
from cxrnet.cli.command_line import typed_words
from cxrnet.cli.hydra_errors import REFUSALS, explain

MODELS = "there is no such option; choose one of custom_cnn, mobilenet_v2, resnet50, timm, vgg16, vgg19"
UNREADABLE = "can't be read; close its brackets and quotes, or quote the whole value:"


def refused(*arguments: str, configs=None) -> str:
    folder = configs or config_folder()
    with pytest.raises(REFUSALS) as caught, initialize_config_dir(str(folder), version_base="1.3"):
        compose("train", list(arguments), return_hydra_config=True)
    line = explain(caught.value, folder, "train", arguments)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("model=resnet999", f"model=resnet999: {MODELS}"),
        ("model=3", f"model=3: {MODELS}"),
        ("experiment=[demo,nope]", "experiment=nope: there is no such option; choose one of binary_resnet50, "),
        ("hydra/launcher=nope", "hydra/launcher=nope: there is no such option; choose one of basic"),
        ("modle=vgg16", "modle: no such key; did you mean model? (+modle=vgg16 would add it)"),
        ("data.batchs=3", "data.batchs: no such key; did you mean data.batch_size? (+data.batchs=3 would add it)"),
        ("batch_size=3", "batch_size: no such key; did you mean data.batch_size? (+batch_size=3 would add it)"),
        ("data.limit.x=3", "data.limit.x: no such key; did you mean data.limit? (+data.limit.x=3 would add it)"),
        ("schedule.mode=max", "schedule.mode: leave it out; a loss is better when it is small"),
        ("data={foo: 1}", "data.foo: no such key; "),
        ("nothing.like.it=1", "nothing.like.it: no such key; --help shows all (+nothing.like.it=1 would add it)"),
        ("seed", "seed: not of the form key=value; --help shows the keys"),
        ("data.size=[1", f"data.size=[1: {UNREADABLE} 'data.size=\"[1\"'"),
        ("outputs=my runs (x)", f"outputs=my runs (x): {UNREADABLE} 'outputs=\"my runs (x)\"'"),
        ("seed=int(x)", "seed=int(x): invalid literal for int() with base 10: 'x'"),
        ("seed=1,2", "seed=1,2: several values; to run one after the other add -m, for a list write seed=[1,2]"),
        ("seed=range(1,3)", "seed=range(1,3): several values; to run one after the other add -m"),
        ("+seed=3", "+seed=3: seed is there already; leave the + out: seed=3"),
        ("+experiment=demo", "+experiment=demo: experiment is there already; leave the + out: experiment=demo"),
        ("~foo", "~foo: Could not delete from config. 'foo' does not exist."),
        ("hydra.job.num=abc", "hydra.job.num=abc: Value 'abc' of type 'str' could not be converted to Integer"),
    ],
)  # fmt: skip
def test_what_is_wrong_and_what_to_type(argument, line):
    assert refused("data.limit=3", argument, "schedule=head").startswith(line)


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        (
            "trainer.max_epochs=2",
            "trainer.max_epochs: the schedule says how long each phase trains; give schedule.max_ep",
        ),
        (
            "trainer.max_epoch=2",
            "trainer.max_epoch: Lightning's Trainer has no such argument; max_epochs: the schedule ",
        ),
        ("trainer.foo.bar=2", "trainer.foo.bar: Lightning's Trainer has no such argument; leave it out"),
    ],
)
def test_an_argument_that_adding_would_not_help_is_not_offered(argument, line):
    assert refused(argument).startswith(line)
    assert "would add it" not in refused(argument)
    assert "(+trainer.profiler=simple would add it)" in refused("trainer.profiler=simple")


def test_the_other_words_decide_which_keys_there_are():
    assert "did you mean optimizer.momentum?" in refused("optimizer=sgd", "optimizer.momentun=1")
    assert "did you mean optimizer.momentum?" not in refused("optimizer=adam", "optimizer.momentun=1")


def test_of_two_mistakes_the_first_that_hydra_finds_is_told():
    assert refused("data.batchsize=3", "seeed=1").startswith(
        "data.batchsize: no such key; did you mean data.batch_size?"
    )


def test_a_config_that_asks_for_an_option_that_is_not_there(tmp_path):
    (tmp_path / "train.yaml").write_text("defaults: [_self_, model: nope]\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "vgg16.yaml").write_text("a: 1\n")
    assert refused(configs=tmp_path) == "config: In 'train': Could not find 'model/nope'; choose one of vgg16"


def test_a_mistyped_key_of_a_mapping_is_not_proposed():
    line = refused(*typed_words(["data.splitt.fractions={train: 1}"]))
    assert line.startswith("data.splitt.fractions: no such key; did you mean data.split.fractions? (")
