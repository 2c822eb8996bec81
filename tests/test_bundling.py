from functools import partial

import numpy as np
import pytest
import torch

from cxrnet.bundling import make_bundle, predict_splits
from cxrnet.data.splits import split_manifest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.predictions import probabilities_of

CONFIG = {"trainer": {"accelerator": "cpu"}, "operating_points": None, "refer": None}


def test_thresholds_are_chosen_on_validation_images_and_called_by_the_bundle_on_disk(make_network, make_data, tmp_path):
    data = make_data()
    config = {**CONFIG, "operating_points": {"Covid": {"sensitivity": 0.5}}}
    bundled = make_bundle(make_network().eval(), data, config, tmp_path / "bundle")
    threshold = bundled.bundle.operating_points["Covid"]
    predictions = predict_splits(bundled.bundle, data, config)
    assert predictions["split"].tolist() == ["val"] * 9 + ["test"] * 9
    called = probabilities_of(predictions)[:, 0] >= threshold
    assert ((predictions["predicted"] == "Covid") == called).all()
    of_class = (predictions["split"] == "val") & (predictions["label"] == "Covid")
    assert called[of_class].mean() >= 0.5
    assert "chosen for sensitivity >= 0.5" in bundled.sentences[0]


def test_a_temperature_that_was_fitted_divides_the_logits(make_network, make_data, tmp_path):
    data = make_data(split=partial(split_manifest, fractions={"train": 0.25, "val": 0.75, "test": 0.0}, seed=0))
    network = make_network()
    images, labels = data.arrays("val")
    labels = labels.clone()
    labels[::3] = (labels[::3] + 1) % 3  # it learns a third of the labels wrongly, so that it is wrong and sure of it
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(torch.from_numpy(images[:]).unsqueeze(1)), labels).backward()
        optimizer.step()
    bundled = make_bundle(network.eval(), data, CONFIG, tmp_path / "bundle")
    assert bundled.temperature.reason is None
    assert bundled.bundle.temperature == bundled.temperature.value != 1
    table = predict_splits(bundled.bundle, data, CONFIG)
    losses = [-np.log(row[f"prob_{row['label']}"]) for row in table.to_dict("records")]
    assert np.mean(losses) == pytest.approx(bundled.temperature.nll_after, rel=1e-4)


def test_the_cutoff_for_a_reader_is_chosen_on_validation_images_and_applied_by_the_bundle(
    make_network, make_data, tmp_path
):
    data = make_data()
    config = {**CONFIG, "operating_points": {"Covid": {"sensitivity": 0.5}}, "refer": 0.25}
    bundled = make_bundle(make_network().eval(), data, config, tmp_path / "bundle")
    predictions = predict_splits(bundled.bundle, data, config)
    assert predictions.loc[predictions["split"] == "val", "referred"].sum() == 2  # of nine
    called = [row[f"prob_{row['predicted']}"] for row in predictions.to_dict("records")]
    assert predictions["referred"].tolist() == [probability < bundled.bundle.refer_below for probability in called]
    assert "referred" not in predict_splits(
        make_bundle(make_network().eval(), data, CONFIG, tmp_path / "b").bundle, data, CONFIG
    )


def test_what_the_validation_images_cannot_do_is_refused_and_leaves_no_bundle(make_network, make_data, tmp_path):
    config = {**CONFIG, "operating_points": {"Covid": {"specificity": 1.0}, "Normal": {"specificity": 1.5}}}
    with pytest.raises(CxrnetError, match=r"operating_points\.Normal"):
        make_bundle(make_network().eval(), make_data(), config, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
