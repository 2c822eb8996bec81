import math
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity
from torch import nn

from cxrnet.models.freezing import set_trainable, split_network
from cxrnet.models.lightning_module import Classifier, metric_names

CLASSES = ("Covid", "Normal", "Viral Pneumonia")
WEIGHTS = torch.tensor([5.0, 1.0, 0.2])
SGD = partial(torch.optim.SGD, lr=1e-2)


def trainer(**changes) -> pl.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(accelerator="cpu", devices=1, num_sanity_val_steps=0, **{"max_epochs": 1, **quiet, **changes})


def test_the_metrics_of_validation_are_those_of_the_whole_split(make_network, make_data):
    data, network = make_data(batch_size=2), make_network()
    classifier = Classifier(network, nn.CrossEntropyLoss(), SGD)
    (logged,) = trainer().validate(classifier, data, verbose=False)
    images, labels = data.arrays("val")
    with torch.inference_mode():
        probabilities = network.eval()(torch.from_numpy(images[:]).unsqueeze(1)).softmax(dim=1)
    predicted = probabilities.argmax(dim=1)
    assert logged["val/accuracy"] == pytest.approx((predicted == labels).float().mean().item())
    auc = roc_auc_score(labels, probabilities.double().numpy(), multi_class="ovr", average="macro")
    assert logged["val/roc_auc_macro"] == pytest.approx(auc, abs=1e-6)
    assert logged["val/balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert logged["val/macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    cosines = cosine_similarity(torch.eye(3)[labels], probabilities).diagonal()
    assert logged["val/cosine_similarity"] == pytest.approx(cosines.mean(), abs=1e-6)
    for k, name in enumerate(CLASSES):
        sensitivity = (predicted[labels == k] == k).float().mean().item()
        specificity = (predicted[labels != k] != k).float().mean().item()
        assert logged[f"val/sensitivity/{name}"] == pytest.approx(sensitivity)
        assert logged[f"val/specificity/{name}"] == pytest.approx(specificity)


@pytest.mark.parametrize("name", ["val/sensitivity/Covid", "val/accuracy", "train/loss"])
def test_the_best_epoch_and_the_stopping_by_any_logged_metric(make_network, make_data, tmp_path, name):
    # Lightning's callbacks look at the end of the training epoch unless told otherwise; the training metrics of this
    # epoch are there by then.
    seen, mode = Collector(), "min" if name.endswith("loss") else "max"
    best = ModelCheckpoint(tmp_path, "best", monitor=name, mode=mode)
    patient = EarlyStopping(name, patience=1, mode=mode)
    fit = trainer(callbacks=[seen, best, patient], enable_checkpointing=True, max_epochs=4)
    fit.fit(Classifier(make_network(), nn.CrossEntropyLoss(), SGD), make_data())
    better, scores = min if mode == "min" else max, [metrics[name] for metrics in seen.metrics]
    assert best.best_model_score.item() == patient.best_score.item() == pytest.approx(better(scores))
    stalled = [better(scores[: n + 1]) == better(scores[:n]) for n in range(1, len(scores))]
    assert not any(stalled[:-1])
    assert stalled[-1] or len(scores) == 4


def test_both_losses_include_the_penalty(make_network, make_data):
    frozen, metrics = partial(torch.optim.SGD, lr=0.0), {}
    for l2 in (0.0, 0.5):
        network, seen = make_network(hidden=(16,), l2=l2, dropout=0.0), Collector()
        set_trainable(network, "head")  # else batch norm moves
        trainer(callbacks=[seen]).fit(Classifier(network, nn.CrossEntropyLoss(), frozen), make_data())
        metrics[l2] = seen.metrics[0]
    penalty = network.penalty().item()
    assert penalty > 0
    for name in ("train/loss", "val/loss"):
        assert metrics[0.5][name] - metrics[0.0][name] == pytest.approx(penalty, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 9])
def test_the_validation_loss_does_not_depend_on_the_batches(make_network, make_data, batch_size):
    # The rows come sorted by class: a batch holds one or two classes, and a weighted mean in each would be another.
    data, network, loss = make_data(batch_size=batch_size), make_network(), nn.CrossEntropyLoss(weight=WEIGHTS)
    (logged,) = trainer().validate(Classifier(network, loss, SGD), data, verbose=False)
    images, labels = data.arrays("val")
    with torch.inference_mode():
        expected = loss(network.eval()(torch.from_numpy(images[:]).unsqueeze(1)), labels)
    assert logged["val/loss"] == pytest.approx(expected.item(), rel=1e-5)


class Collector(pl.Callback):
    def __init__(self):
        self.metrics = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.metrics.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def test_callbacks_see_the_training_metrics_of_this_epoch(make_network, make_data):
    data, network, seen = make_data(batch_size=18), make_network(dropout=0.0), Collector()
    frozen = partial(torch.optim.SGD, lr=0.0)
    trainer(callbacks=[seen]).fit(Classifier(network, nn.CrossEntropyLoss(), frozen), data)
    images, labels = data.arrays("train")
    with torch.inference_mode():  # batch norm with the statistics of the batch, which is the whole split
        logits = network.train()(torch.from_numpy(images[:]).unsqueeze(1))
    assert len(seen.metrics) == 1
    assert seen.metrics[0]["train/loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-4)
    assert seen.metrics[0]["train/accuracy"] == pytest.approx((logits.argmax(dim=1) == labels).float().mean().item())
    auc = roc_auc_score(labels, logits.softmax(dim=1).double().numpy(), multi_class="ovr")
    assert seen.metrics[0]["train/roc_auc_macro"] == pytest.approx(auc, abs=1e-5)
    assert set(metric_names(CLASSES)) == set(seen.metrics[0])


def test_a_loss_that_is_no_number_is_shown_as_none(make_network, make_data):
    diverges, seen = partial(torch.optim.SGD, lr=1e30), Collector()
    trainer(callbacks=[seen], max_epochs=2).fit(
        Classifier(make_network(), nn.CrossEntropyLoss(), diverges), make_data()
    )
    assert math.isnan(seen.metrics[1]["train/loss"])


def test_features_of_a_cut_network_go_on_from_there(make_network):
    network = make_network()
    set_trainable(network, {"from": "block2"})
    parts = split_network(network.eval())
    classifier = Classifier(network, nn.CrossEntropyLoss(), SGD, trainable_part=parts.trainable_part)
    images = torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(classifier({"features": parts.trunk(images)}), classifier({"image": images}))
    assert {name.partition(".")[0] for name in classifier.state_dict() if "block1" in name} == {"network"}


def test_a_frozen_backbone_does_not_move_in_a_plain_fit(make_network, make_data):
    network = make_network()
    set_trainable(network, "head")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trainer().fit(Classifier(network, nn.CrossEntropyLoss(), SGD), make_data())
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.1.weight", "head.1.bias"}
