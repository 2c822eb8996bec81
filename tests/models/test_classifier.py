from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from cxrnet.models.classifier import Classifier, val_metric_names
from cxrnet.models.freezing import set_trainable

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
    return pl.Trainer(accelerator="cpu", devices=1, max_epochs=1, num_sanity_val_steps=0, **quiet, **changes)


def test_the_metrics_of_validation_are_those_of_the_whole_split(make_network, make_data):
    data, network = make_data(batch_size=2), make_network()
    classifier = Classifier(network, nn.CrossEntropyLoss(), SGD)
    (logged,) = trainer().validate(classifier, data, verbose=False)
    images, labels = data.arrays("val")
    with torch.inference_mode():
        probabilities = network.eval()(torch.from_numpy(images).unsqueeze(1)).softmax(dim=1)
    predicted = probabilities.argmax(dim=1)
    assert logged["val_accuracy"] == pytest.approx((predicted == labels).float().mean().item())
    auc = roc_auc_score(labels, probabilities.double().numpy(), multi_class="ovr", average="macro")
    assert logged["val_auc"] == pytest.approx(auc, abs=1e-6)
    for k, name in enumerate(CLASSES):
        sensitivity = (predicted[labels == k] == k).float().mean().item()
        specificity = (predicted[labels != k] != k).float().mean().item()
        assert logged[f"val_sensitivity_{name}"] == pytest.approx(sensitivity)
        assert logged[f"val_specificity_{name}"] == pytest.approx(specificity)


def test_names_of_what_can_be_monitored(make_network, make_data):
    (logged,) = trainer().validate(Classifier(make_network(), nn.CrossEntropyLoss(), SGD), make_data(), verbose=False)
    assert set(logged) == set(val_metric_names(CLASSES))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 9])
def test_the_validation_loss_does_not_depend_on_the_batches(make_network, make_data, batch_size):
    # The rows come sorted by class: a batch holds one or two classes, and a weighted mean in each would be another.
    data, network, loss = make_data(batch_size=batch_size), make_network(), nn.CrossEntropyLoss(weight=WEIGHTS)
    (logged,) = trainer().validate(Classifier(network, loss, SGD), data, verbose=False)
    images, labels = data.arrays("val")
    with torch.inference_mode():
        expected = loss(network.eval()(torch.from_numpy(images).unsqueeze(1)), labels)
    assert logged["val_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_second_validation_starts_anew(make_network, make_data):
    classifier, data, once = Classifier(make_network(), nn.CrossEntropyLoss(), SGD), make_data(), trainer()
    assert once.validate(classifier, data, verbose=False) == once.validate(classifier, data, verbose=False)


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
        logits = network.train()(torch.from_numpy(images).unsqueeze(1))
    assert len(seen.metrics) == 1
    assert seen.metrics[0]["train_loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-4)
    assert seen.metrics[0]["train_accuracy"] == pytest.approx((logits.argmax(dim=1) == labels).float().mean().item())
    auc = roc_auc_score(labels, logits.softmax(dim=1).double().numpy(), multi_class="ovr")
    assert seen.metrics[0]["train_auc"] == pytest.approx(auc, abs=1e-5)
    assert set(val_metric_names(CLASSES)) <= set(seen.metrics[0])


def test_features_take_the_place_of_images(make_network):
    network = make_network().eval()
    classifier = Classifier(network, nn.CrossEntropyLoss(), SGD)
    images = torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(classifier({"image": images}), classifier({"features": network.features(images)}))


def test_the_optimizer_gets_what_is_trainable(make_network):
    network = make_network()
    set_trainable(network, "head")
    optimizer = Classifier(network, nn.CrossEntropyLoss(), SGD).configure_optimizers()
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert [id(p) for p in held] == [id(p) for p in network.head.parameters()]


def test_a_frozen_backbone_does_not_move_in_a_plain_fit(make_network, make_data):
    network = make_network()
    set_trainable(network, "head")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trainer().fit(Classifier(network, nn.CrossEntropyLoss(), SGD), make_data())
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.1.weight", "head.1.bias"}
