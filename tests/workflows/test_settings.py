import pytest

from cxrnet.cli.app import compose_config
from cxrnet.core.config import plain_config
from cxrnet.core.schema import build
from cxrnet.errors import CxrnetError
from cxrnet.workflows.settings import Compare, Evaluate, Predict, Prepare, Sync, Train


def made(*words: str) -> Train:
    return build(Train, plain_config(compose_config(Train, words)))


def test_what_is_composed_makes_the_class_of_the_command():
    train = made("experiment=demo", "finetune=true", "model.dropout=[0.1,0.2]")
    assert (train.schedule.head.name, train.schedule.phases[0].enabled) == ("head", True)
    assert (train.data.size, train.model.mean, train.data.batch_size) == ((96, 96), None, 16)
    compare = build(Compare, plain_config(compose_config(Compare)))
    assert compare.by == "roc_auc_macro"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("seed=-1", "^seed: -1 is out of range; give a whole number from 0 to"),
        ("seed=2147483648", "^seed: "),
        ("data.seed=-1", "^data.seed: -1 is out of range"),
        ("outputs=", "^outputs: "),
        ("model.dropout=true", "^model.dropout: True is of another type"),
        ("model.dropout=[0.1,true]", "^model.dropout: .* is of another type"),
        ("schedule.scratch.enabled=false", "^schedule.scratch.enabled: false"),
        ("defer=2", "^defer: .*between 0 and 1"),
        ("data.batch_size=0", "^data.batch_size: .*from 1 on"),
        ("data.size=[224]", "^data.size: .* of 2"),
        ("data.num_workers=-1", "^data.num_workers: "),
        ("schedule.head.epochs=0", "^schedule: phase 'head': epochs: 0 is out of range"),
        ("schedule.head.name=a/b", "^schedule: phase 'a/b': the name becomes a folder"),
        ("schedule.scratch=null", "^schedule.scratch: there is none; .*'head'"),
        ("model.output=sigmoid", "^data.classes: .*needs to know the positive class"),
        ("data.batch_size=1 model.batch_norm=true", "^data.batch_size: 1, but the batch norms of the head"),
        *((f"trainer.precision={each}", "^trainer.precision: .*not for") for each in ("64-true", "bf16-true", 64)),
        *((f"trainer=cpu trainer.precision={name}", "^trainer.precision: .*needs a GPU") for name in ("16-mixed", 16)),
    ],
)  # fmt: skip
def test_what_is_out_of_range_or_does_not_go_together(words, message):
    with pytest.raises(CxrnetError, match=message):
        made(*words.split())


@pytest.mark.parametrize(
    "words",
    [
        "data.batch_size=1",
        "data.batch_size=2 model.batch_norm=true",
        "model.output=sigmoid data.classes=[a,b]",
        "trainer.deterministic=true trainer.benchmark=false",
        *(f"trainer.precision={name}" for name in ("32-true", 32, "16-mixed", 16, "bf16-mixed", "bf16")),
        *(f"trainer=cpu trainer.precision={name}" for name in (32, "bf16")),
    ],
)
def test_what_will_do(words):
    made(*words.split())


@pytest.mark.parametrize(
    ("command", "words", "key"),
    [
        (Predict, ["bundle=a", "input=b", "batch_size=0"], "batch_size"),
        (Evaluate, ["bundle=a", "batch_size=0"], "batch_size"),
        (Evaluate, ["bundle=a", "evaluation.resamples=3"], "evaluation.resamples"),
        (Prepare, ["sheet.views=0"], "sheet.views"),
        (Prepare, ["report.images=-1"], "report.images"),
        (Train, ["report.images=101"], "report.images"),
        (Compare, ["metrics=[]", "by=f1"], "metrics"),
        (Compare, ["bins=0"], "bins"),
        (Compare, ["seed=-1"], "seed"),
        (Evaluate, ["bundle=a", "seed=-1"], "seed"),
        (Prepare, ["seed=-1"], "seed"),
        (Prepare, ["data.seed=-1"], "data.seed"),
        (Sync, ["outputs="], "outputs"),
        (Compare, ["outputs="], "outputs"),
        (Compare, ["resamples=0"], "resamples"),
    ],
)
def test_other_commands_check_their_numbers_too(command, words, key):
    with pytest.raises(CxrnetError, match=f"^{key}: .* is out of range"):
        build(command, plain_config(compose_config(command, words)))
