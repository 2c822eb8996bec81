import dataclasses

import pandas as pd

from cxrnet.models.backbones.weights import LoadedWeights
from cxrnet.reporting.training_run import methods_of
from cxrnet.reporting.wording import issues_of
from cxrnet.training.schedule import PhaseResult

CONFIG = {
    "seed": 0,
    "augment": None,
    "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "weight_decay": 0.0},
    "loss": {"_target_": "cxrnet.models.losses.cross_entropy", "_partial_": True},
    "schedule": {"monitor": "val/loss", "views": 2},
    "data": {"split": {"_target_": "cxrnet.data.splits.split_manifest", "_partial_": True, "seed": 0}},
}
PHASE = PhaseResult("head", "head", 3843, 0.01, 2.0, False, 1, 5, "best", 4, "val/loss", 0.25, 1.0, kept=True)


def methods(data, **config):
    return methods_of(data, LoadedWeights("random", "as asked for"), [PHASE], CONFIG | config)


def test_methods_are_read_from_configuration_and_data(make_data):
    said = methods(make_data())
    assert said["split"] == "split_manifest(seed=0)"
    assert "Adam(weight_decay=0.0); cross_entropy()" in said["training"]
    assert "learning rate: 0.01, epochs: 5, weight decay over all of them: 2)" in said["training"]
    assert "augmentation: none" in said["training"]
    assert "with the best val/loss on the validation images: 4, 0.25" in said["final model"]
    assert "of 9 test images, 0 have a duplicate in train or val and patients are not known" in said["level"]
    assert said["characteristics"] == ""


def test_methods_of_a_head_that_was_fitted_at_once(make_data):
    told = "logistic regression with an L2 of 0.1, chosen by 5-fold cross-validation on 90 training images"
    fitted = dataclasses.replace(PHASE, lr=0, decay=0, epochs=1, fitted=told, l2=0.1, losses=((1.0, 0.5), (0.1, 0.4)))
    said = methods_of(make_data(), LoadedWeights("random", "as asked for"), [fitted], CONFIG)
    assert f"phase head (trainable: head, parameters: 3,843, {told})" in said["training"]
    assert "Adam" not in said["training"]
    assert said["final model"] == "the head that phase head fitted, and val/loss on the validation images: 0.25"


def test_an_augmentation_that_a_frozen_backbone_does_not_see_is_told(make_data):
    flips = {"_target_": "cxrnet.data.augment.geometric", "flip": 0.5}
    once = CONFIG | {"augment": flips, "schedule": {"monitor": "val/loss", "views": 1}}
    rest = dataclasses.replace(PHASE, name="finetune", trainable="last 100", kept=False)

    def augmentation(config, *phases):
        return methods_of(make_data(), LoadedWeights("random", "as asked for"), phases, config)["training"]

    assert "augmentation: none, as the head was trained on the images themselves" in augmentation(once, PHASE)
    assert "geometric(flip=0.5), but not in phase head, on the images themselves" in augmentation(once, PHASE, rest)
    scratch = dataclasses.replace(PHASE, trainable="all")
    assert "augmentation: geometric(flip=0.5); " in augmentation(once, scratch)
    assert "augmentation: geometric(flip=0.5); " in augmentation(CONFIG | {"augment": flips}, PHASE)


def test_patients_that_are_known_in_part_are_not_told_as_known(make_data):
    data = make_data()
    first = data.manifest["split"].eq("test").to_numpy().argmax()
    patients = ["p" if i == first else None for i in range(len(data.manifest))]
    data.manifest = data.manifest.assign(patient_id=pd.array(patients, "string"))
    assert "have a duplicate in train or val and 0 share a patient (not known of 8)" in methods(data)["level"]


def test_the_split_of_a_fold_is_that_of_the_folds(make_data):
    said = methods(make_data(), fold=2, folds=5, folds_by="patient")["split"]
    assert said == (
        "fold 2 of 5 is test, the next one validation, the others training "
        "(fold_manifest(folds=5, fold=1, by=patient, seed=0))"
    )
    loud = methods(make_data(), fold=2, folds=5, folds_by="image")["split"]
    assert "IMAGES, NOT PATIENTS (folds_by=image)" in loud
    assert methods(make_data(), fold=None, folds=None)["split"] == "split_manifest(seed=0)"  # of a run over seeds alone


def test_characteristics_of_the_patients_are_told_where_the_data_have_them(make_data):
    data = make_data()
    known = data.manifest["split"] == "test"
    data.manifest = data.manifest.assign(
        sex=pd.array(["F"] * len(known), dtype="string"), age=[str(40) if k else None for k in known]
    )
    assert methods(data)["characteristics"].endswith("test: sex F 9; median age 40 (known of 9)")


def test_faults_are_told_with_their_source(make_data):
    assert issues_of(make_data().known_issues) == []
    assert issues_of({"a": ["one", "two"], "b": ["three"]}) == ["a: one.", "a: two.", "b: three."]
