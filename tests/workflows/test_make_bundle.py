from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss

from cxrnet.data.sources.folder import folder
from cxrnet.data.splits import split_manifest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.calibration import before_temperature
from cxrnet.evaluation.predictions import label_codes, logits_of, probabilities_of, softmax
from cxrnet.inference import predict_images, predictions_of
from cxrnet.models.bundle import load_bundle
from cxrnet.tracking.tracker import TrackedRun
from cxrnet.workflows.build import make_bundle, predict_test
from cxrnet.workflows.run_context import RunContext

CONFIG = {
    "trainer": {"accelerator": "cpu"},
    "operating_points": None,
    "test": True,
    "defer": None,
    "keep_examples": False,
    "loss": {
        "_target_": "cxrnet.models.losses.cross_entropy",
        "_partial_": True,
        "class_weights": "none",
        "label_smoothing": 0.0,
    },
}


@pytest.fixture
def bundled(tmp_path):
    """Makes the bundle of a network; gives what it chose, and the predictions of val and test."""

    def make(network, data, **changes):
        run = RunContext({**CONFIG, **changes}, tmp_path, (), "r", False, None, TrackedRun(tmp_path))
        made = make_bundle(run, network.eval(), data)
        tables = [made.validation, *predict_test(made.bundle, data, run.config)[0]]
        return made, pd.concat(tables, ignore_index=True)

    return make


def test_thresholds_are_chosen_on_validation_images_and_kept_in_the_bundle(bundled, make_network, make_data):
    made, predictions = bundled(make_network(), make_data(), operating_points={"Covid": {"sensitivity": 0.5}})
    threshold = made.bundle.operating_points["Covid"]
    assert predictions["split"].tolist() == ["val"] * 9 + ["test"] * 9
    predicted = probabilities_of(predictions)[:, 0] >= threshold
    assert ((predictions["predicted"] == "Covid") == predicted).all()
    of_class = (predictions["split"] == "val") & (predictions["label"] == "Covid")
    assert predicted[of_class].mean() >= 0.5
    assert "chosen for sensitivity >= 0.5" in made.thresholds[0]


def test_a_temperature_that_was_fitted_divides_the_logits(bundled, make_network, make_data, draw, tmp_path):
    split = partial(split_manifest, fractions={"train": 0.25, "val": 0.75, "test": 0.0}, seed=0)
    images = draw(tmp_path / "xrays", images=16)  # 12 of each class for validation, enough for an offset
    data = make_data(manifest=partial(folder, images), split=split)
    network = make_network()
    images, labels = data.arrays("val")
    labels = labels.clone()
    labels[::3] = (labels[::3] + 1) % 3  # it learns a third of the labels wrongly, so that it is wrong and sure of it
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(torch.from_numpy(images[:]).unsqueeze(1)), labels).backward()
        optimizer.step()
    made, table = bundled(network, data)
    assert made.temperature.reason is None
    assert made.bundle.temperature == made.temperature.value != 1
    losses = [-np.log(row[f"prob_{row['label']}"]) for row in table.to_dict("records")]
    assert np.mean(losses) == pytest.approx(made.temperature.nll_after, rel=1e-4)
    # What the reliability diagram calls temperature 1 is the network as the temperature was fitted on it.
    again = load_bundle(tmp_path / "bundle")
    assert again.temperature_offset == pytest.approx(made.temperature.offset)
    assert len(again.temperature_offset) == 3
    # The images were predicted once, before there was an offset: the table is that of the bundle, to the last bit.
    logits = predict_images(again, data.arrays("val")[0], data.batch_size, torch.device("cpu"))
    pd.testing.assert_frame_equal(table, predictions_of(again, data.rows("val"), logits).reset_index(drop=True))
    np.testing.assert_array_equal(logits_of(table), logits)
    before = before_temperature(logits_of(table), again.temperature, again.temperature_offset)
    assert log_loss(label_codes(table), softmax(before)) == pytest.approx(made.temperature.nll_before, rel=1e-4)
    assert log_loss(label_codes(table), softmax(logits_of(table) * again.temperature)) != pytest.approx(
        made.temperature.nll_before, rel=1e-2
    )


def test_the_deferral_threshold_is_chosen_on_validation_images_and_applied_by_the_bundle(
    bundled, make_network, make_data
):
    policy = {"Covid": {"sensitivity": 0.5}}
    made, predictions = bundled(make_network(), make_data(), operating_points=policy, defer=0.25)
    assert predictions.loc[predictions["split"] == "val", "deferred"].sum() == 2  # of nine
    predicted = [row[f"prob_{row['predicted']}"] for row in predictions.to_dict("records")]
    assert predictions["deferred"].tolist() == [probability < made.bundle.defer_below for probability in predicted]
    assert "deferred" not in bundled(make_network(), make_data())[1]


def test_with_class_weights_the_deferral_threshold_is_of_the_share_in_weight_x_probability(
    bundled, make_network, make_data
):
    loss = {**CONFIG["loss"], "class_weights": "balanced"}
    made, predictions = bundled(make_network(), rare(make_data()), loss=loss, defer=0.25)
    bundle = made.bundle
    scores = probabilities_of(predictions) * [bundle.decision_weights[name] for name in bundle.classes]
    certain = scores.max(axis=1) / scores.sum(axis=1)
    np.testing.assert_allclose(predictions["certainty"], certain, rtol=1e-9)
    assert predictions["deferred"].tolist() == (certain < bundle.defer_below).tolist()
    assert predictions.loc[predictions["split"] == "val", "deferred"].sum() == 2  # of nine


def test_what_the_validation_images_cannot_do_is_refused_and_leaves_no_bundle(
    bundled, make_network, make_data, tmp_path
):
    policy = {"Covid": {"specificity": 1.0}, "Normal": {"specificity": 1.5}}
    with pytest.raises(CxrnetError, match=r"operating_points\.Normal"):
        bundled(make_network(), make_data(), operating_points=policy)
    assert not (tmp_path / "bundle").exists()


def rare(data):
    """Leave one training image of Viral Pneumonia."""
    gone = (data.manifest["label"] == "Viral Pneumonia") & (data.manifest["split"] == "train")
    rows = data.manifest[gone]
    data.manifest = data.manifest.drop(index=rows.index[1:])
    return data


@pytest.mark.parametrize(
    ("sampler", "loss"),
    [
        ("shuffle", {"class_weights": "balanced"}),
        ("shuffle", {"class_weights": {"Covid": 3.0}}),
        ("balanced", {}),
        ("balanced", {"class_weights": "balanced"}),
        ("shuffle", {"_target_": "cxrnet.models.losses.cost_sensitive", "weight": 1.0, "costs": None}),
    ],
    ids=["balanced", "by name", "sampler", "sampler and weights", "costs"],
)
@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_what_was_weighed_in_training_is_weighed_by_the_decision(
    bundled, make_network, make_data, tmp_path, draw, sampler, loss, output
):
    classes = ("Covid", "Normal", "Viral Pneumonia") if output == "softmax" else ("Covid", "Normal")
    images = draw(tmp_path / "xrays", classes)
    data = rare(make_data(manifest=partial(folder, images), sampler=sampler))
    if output == "sigmoid":
        gone = data.manifest[(data.manifest["label"] == "Normal") & (data.manifest["split"] == "train")]
        data.manifest = data.manifest.drop(index=gone.index[2:])
    network = make_network(classes=classes, output=output).eval()
    made, predictions = bundled(network, data, loss={**CONFIG["loss"], **loss})
    bundle = made.bundle
    counts = np.array(data.counts("train"))
    assert list(bundle.prior.values()) == pytest.approx(counts / counts.sum())
    assert bundle.temperature == 1
    tested = torch.from_numpy(np.concatenate([data.arrays(split)[0][:] for split in ("val", "test")])).unsqueeze(1)
    with torch.inference_mode():
        as_trained = network(tested).argmax(dim=1).tolist()
    if "costs" not in loss:
        assert min(bundle.decision_weights.values()) == 1
        assert predictions["predicted"].tolist() == [classes[index] for index in as_trained]
        assert "Classes were weighted in training" in made.weighing[0]
        assert "weight x probability" in made.weighing[1]
    else:
        assert bundle.decision_weights is None  # every mistake costs the same
        logits = predict_images(bundle, data.arrays("train")[0], 8, torch.device("cpu"))
        mean = torch.from_numpy(logits).softmax(dim=1).mean(dim=0)
        np.testing.assert_allclose(mean.numpy(), counts / counts.sum(), atol=1e-5)
        assert "all classes weigh the same" in made.weighing[0]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ({"_target_": "cxrnet.models.losses.focal", "gamma": 2.0, "class_weights": "balanced"}, (1, 1, 6)),
        (
            {
                "_target_": "cxrnet.models.losses.cost_sensitive",
                "label_smoothing": 0.0,
                "weight": 1.0,
                "costs": {"Covid": {"Normal": 4.0, "Viral Pneumonia": 4.0}},
            },
            (4, 1, 1),
        ),
    ],
    ids=["focal", "costs"],
)
def test_the_decision_has_the_weights_that_were_asked_for_where_the_offset_is_fitted(
    bundled, make_network, make_data, loss, expected
):
    data = rare(make_data())
    bundle = bundled(make_network(), data, loss={"_partial_": True, "class_weights": "none", **loss})[0].bundle
    assert list(bundle.decision_weights.values()) == pytest.approx(expected, rel=1e-5)
    logits = predict_images(bundle, data.arrays("train")[0], 8, torch.device("cpu"))
    counts = np.array(data.counts("train"))
    np.testing.assert_allclose(softmax(logits).mean(axis=0), counts / counts.sum(), atol=1e-5)


def test_without_weights_nothing_is_weighed_and_nothing_is_said(bundled, make_network, make_data):
    network = make_network()
    made, _ = bundled(network, rare(make_data()))
    assert made.bundle.decision_weights is None
    assert made.weighing == []
    assert made.bundle.prior == pytest.approx({"Covid": 6 / 13, "Normal": 6 / 13, "Viral Pneumonia": 1 / 13})
    weights = made.bundle.network.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())
