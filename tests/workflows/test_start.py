import copy
import re
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cxrnet.cli.app import config_folder
from cxrnet.core.config import plain_config
from cxrnet.errors import CxrnetError
from cxrnet.workflows.added_keys import check_added_keys
from cxrnet.workflows.start import check_config


def composed(*words: str) -> dict:
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        return plain_config(compose("train", list(words)))


COMMANDS = ("train", "predict", "compare", "prepare", "evaluate")


def of_command(name: str, *words: str) -> dict:
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        return OmegaConf.to_container(compose(name, list(words)))


@pytest.fixture
def config() -> dict:
    return composed()


def changed(config: dict, **changes) -> dict:
    """The configuration with other values; ``data__size`` is ``data.size``."""
    other = copy.deepcopy(config)
    for key, value in changes.items():
        *groups, name = key.split("__")
        part = other
        for group in groups:
            part = part[group]
        part[name] = value
    return other


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+evaluation.foo=2"], r"^evaluation.foo: no such key; "),
        (["+evaluation.calibration.bin=2"], r"^evaluation.calibration.bin: .* mean evaluation.calibration.bins\?$"),
        (
            ["+evaluation.operating_points={1: 0.7}"],
            r"^evaluation.operating_points: .* did you mean operating_points\?$",
        ),
        (["+model.foo=3"], r"^model.foo: no such key"),
        (["model=vgg16", "+model.dropuot=0.1"], r"^model.dropuot: .* did you mean model.dropout\?$"),
        (["+schedule.foo=1"], r"^schedule.foo: no such key"),
        (["+schedule.scratch.foo=1"], r"^schedule: phase 'scratch'.foo: no such key"),
    ],
)
def test_an_added_key_that_nothing_reads_is_refused(words, message):
    with pytest.raises(CxrnetError, match=message):
        check_config(composed(*words))


@pytest.mark.parametrize(
    "words",
    [
        ["+trainer.profiler=simple", "+optimizer.amsgrad=true", "data=folder", "+data.known_issues.mine=[small]"],
        *([f"model={name}"] for name in ("vgg19", "custom_cnn", "resnet50")),
        *([f"schedule={name}", "finetune=true"] for name in ("full", "gradual", "head")),
        ["experiment=triage_mobilenet_v2_sensitive"],
    ],
)
def test_what_is_there_or_handed_on_is_taken_without_a_word(words, caplog):
    check_config(composed(*words, "data.root=x"))
    assert not caplog.records


def test_an_added_key_at_the_top_is_said(caplog):
    check_config(composed("+mine=7", "+folds_bx=patient", "data.limit=${mine}"))
    assert [text.partition(":")[0] for text in caplog.messages] == ["folds_bx", "mine"]
    assert "did you mean folds_by?" in caplog.messages[0]


@pytest.mark.parametrize(
    ("command", "word", "message"),
    [
        ("compare", "+tracking.url=3", "tracking.url: no such key; did you mean tracking.uri"),
        ("prepare", "+sheet.perclass=3", "sheet.perclass: no such key; did you mean sheet.per_class"),
        ("evaluate", "+tracking.foo=3", "tracking.foo: no such key"),
    ],
)
def test_every_command_refuses_an_added_key_of_a_group(command, word, message):
    with pytest.raises(CxrnetError, match=f"^{message}"):
        check_added_keys(of_command(command, word), config_folder(), command)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_an_added_key_at_the_top_and_reads_its_own(command, caplog):
    check_added_keys(of_command(command), config_folder(), command)
    assert not caplog.records
    check_added_keys(of_command(command, "+sed=3"), config_folder(), command)
    assert caplog.messages[0].startswith("sed: nothing reads this key")


@pytest.mark.parametrize("seed", [-1, 2**31, 0.5, None, "a"])
def test_no_seed(config, seed):
    with pytest.raises(CxrnetError, match=r"^seed: .* is no seed; give a whole number from 0 to 2147483647$"):
        check_config(changed(config, seed=seed))


def test_one_logit_needs_to_know_its_class(config):
    check_config(changed(config, model__output="sigmoid", data__classes=["a", "b"]))
    with pytest.raises(CxrnetError, match=r"data.classes: model.output=sigmoid needs to know the positive class"):
        check_config(changed(config, model__output="sigmoid"))


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", 64])
def test_a_precision_of_the_weights_is_refused_before_any_image_is_read(config, precision):
    with pytest.raises(CxrnetError, match=rf"^trainer.precision: {precision} is not for the weights"):
        check_config(changed(config, trainer__precision=precision))
    for known in ("32-true", 32, "16-mixed", 16, "bf16-mixed", "bf16"):
        check_config(changed(config, trainer__precision=known))


@pytest.mark.parametrize("precision", ["16-mixed", 16])
def test_a_cpu_has_no_half_precision(config, precision):
    with pytest.raises(CxrnetError, match=rf"^trainer.precision: {precision} needs a GPU, .*precision=bf16-mixed$"):
        check_config(changed(config, trainer__precision=precision, trainer__accelerator="cpu"))
    for known in (32, "bf16"):
        check_config(changed(config, trainer__precision=known, trainer__accelerator="cpu"))


def test_a_trainer_is_exact_or_tries_what_is_fastest(config):
    check_config(changed(config, trainer__deterministic=True, trainer__benchmark=False))
    with pytest.raises(CxrnetError, match=r"^trainer.deterministic: .*give trainer.benchmark=false$"):
        check_config(changed(config, trainer__deterministic=True, trainer__benchmark=True))


def test_batches_of_one_have_no_variance(config):
    with pytest.raises(
        CxrnetError, match=r"^data.batch_size: 1, but the batch norms of the head .*give data.batch_siz"
    ):
        check_config(changed(config, data__batch_size=1, model__batch_norm=True))
    check_config(changed(config, data__batch_size=1))
    check_config(changed(config, data__batch_size=2, model__batch_norm=True))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.batch_size", 0, "data.batch_size: 0 is no number of images"),
        ("data.size", [224], r"data.size: \[224\] is not a size"),
        ("schedule.views", -1, "schedule.views: -1; give a whole number of views"),
        ("schedule.features_gb", "abc", "schedule.features_gb: abc; give gigabytes"),
        ("schedule.max_epochs", 0, "schedule.max_epochs: 0; give a whole number from 1 on, or null"),
        ("evaluation.resamples", 50, "evaluation.resamples: 50 won't do"),
        ("refer", 2, "refer: 2 is no share of the images"),
        ("compile", "maybe", "compile: maybe is neither true nor false"),
    ],
)
def test_a_wrong_value_is_told_before_anything_heavy_is_imported(tmp_path, key, value, message):
    code = (
        "import sys; sys.argv[1:] = sys.argv[1:]\n"
        "from cxrnet.train import main\n"
        "try:\n    main()\n"
        "finally:\n    print([name for name in ('torch', 'lightning', 'mlflow', 'pandas') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"{key}={value}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert re.match(f"error: {message}", done.stderr)
    assert done.stderr.count("\n") == 1
    assert done.stdout.splitlines()[-1] == "[]"
