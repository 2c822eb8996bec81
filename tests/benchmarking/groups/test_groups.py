"""Every job of every group calls what exists, and every ratio is made of the right medians."""

import inspect
from dataclasses import replace
from importlib import import_module

import pytest

from cxrnet.benchmarking.jobs import CONTENDERS
from cxrnet.benchmarking.measuring import Table
from cxrnet.benchmarking.plan import NUMBERS
from cxrnet.benchmarking.running import GROUPS


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_job_names_a_function_and_its_arguments(make_plan, name, device):
    group = GROUPS[name](make_plan("compile=true", device=device))
    jobs = [*group.before, *group.jobs]
    assert len({job.name for job in jobs}) == len(jobs)
    assert set(group.numbers) <= set(NUMBERS)
    for job in jobs:
        module, _, function = job.function.partition(":")
        if module == "keras_recipe":
            assert job.interpreter
        inspect.signature(getattr(import_module(f"{CONTENDERS}.{module}"), function)).bind(**job.settings)


@pytest.mark.parametrize("name", GROUPS)
def test_nothing_measured_gives_ratios_without_values(make_plan, name):
    ratios = GROUPS[name](make_plan()).ratios(Table({}))
    assert ratios
    assert all(ratio.value is None and ratio.met is None for ratio in ratios)
    assert len({ratio.name for ratio in ratios}) == len(ratios)


def values(group, **medians) -> dict[str, float]:
    return {ratio.name: ratio.value for ratio in group.ratios(Table(medians["rows"])) if ratio.value is not None}


def test_frozen_divides_the_times_of_the_others_by_those_of_cxrnet(make_plan):
    rows = {
        "plain loop": {"seconds": 80.0, "val_accuracy": 0.9},
        "cxrnet": {"seconds": 5.0, "val_accuracy": 0.91},
        "cxrnet, warm cache": {"seconds": 2.0, "val_accuracy": 0.91},
        "Keras recipe, augmented": {"seconds": 60.0, "val_accuracy": 0.5},
        "cxrnet, 2 views": {"seconds": 10.0, "val_accuracy": 0.92},
    }
    times = values(GROUPS["frozen"](make_plan()), rows=rows)
    found = values(GROUPS["frozen"](replace(make_plan(), weights="imagenet")), rows=rows)
    assert found.keys() - times.keys() == {"accuracy: cxrnet − plain loop"}  # of random weights it tells nothing
    assert found == {
        "time: plain loop / cxrnet": 16.0,
        "time: plain loop / cxrnet, warm cache": 40.0,
        "accuracy: cxrnet − plain loop": pytest.approx(0.01),
        "time: Keras recipe / cxrnet, 2 views": 6.0,
    }


def test_train_compares_rates_of_one_precision_and_with_the_plain_loop_in_fp32(make_plan):
    group = GROUPS["train"](make_plan())
    rates = {
        "fp32: plain loop": 7.0, "fp32: ceiling, channels last": 11.0, "fp32: cxrnet": 10.5,
        "bf16: ceiling, channels last": 25.0, "bf16: cxrnet": 24.5, "bf16: cxrnet, last layers": 60.0,
        "bf16: plain loop, channels last, last layers": 30.0, "bf16: timm's step": 20.0,
    }  # fmt: skip
    rows = {f"resnet50, {name}": {"images_per_second": rate} for name, rate in rates.items()}
    assert values(group, rows=rows) == {
        "resnet50, fp32: cxrnet / ceiling, channels last": pytest.approx(10.5 / 11),
        "resnet50, fp32: cxrnet / plain loop": pytest.approx(1.5),
        "resnet50, bf16: cxrnet / ceiling, channels last": pytest.approx(0.98),
        "resnet50, bf16: cxrnet / resnet50, fp32: plain loop": pytest.approx(3.5),
        "resnet50, bf16: cxrnet, last layers / plain loop, channels last, last layers": pytest.approx(2.0),
        "resnet50, bf16: ceiling, channels last / timm's step": pytest.approx(1.25),
    }
    targets = {ratio.name: ratio.target for ratio in group.ratios(Table({}))}
    assert targets["resnet50, fp32: cxrnet / plain loop"] == 1.4
    assert targets["resnet50, bf16: cxrnet / resnet50, fp32: plain loop"] == 3.0
    on_gpu = {r.name: r.target for r in GROUPS["train"](make_plan(device="cuda")).ratios(Table({}))}
    assert on_gpu["resnet50, fp32: cxrnet / plain loop"] is None
    assert on_gpu["resnet50, bf16: ceiling, channels last / timm's step"] == 1.0


def test_data_predict_startup_and_growth(make_plan):
    rows = {
        "decoder": {"images_per_second": 200.0},
        "cxrnet, first set-up": {"images_per_second": 190.0},
        "cxrnet, epochs": {"waiting_share": 0.02},
    }
    found = values(GROUPS["data"](make_plan()), rows=rows)
    assert found == {"cxrnet, first set-up / decoder": 0.95, "share of the second epoch spent waiting": 0.02}
    rows = {
        "ceiling, channels last, folded": {"images_per_second": 100.0},
        "cxrnet": {"images_per_second": 95.0, "memory_mb": 900.0},
        "cxrnet, a tenth of the images": {"memory_mb": 750.0},
    }
    found = values(GROUPS["predict"](make_plan()), rows=rows)
    assert found == {
        "rate: cxrnet / ceiling, channels last, folded": 0.95,
        "memory: cxrnet / cxrnet, a tenth of the images": 1.2,
    }
    rows = {
        "python": {"seconds": 0.02},
        "import cxrnet": {"seconds": 0.05},
        "import torch, lightning, mlflow": {"seconds": 5.0},
        "train, to the first batch": {"seconds": 6.0},
    }
    found = values(GROUPS["startup"](make_plan()), rows=rows)
    assert found == {
        "import cxrnet − python": pytest.approx(0.03),
        "train, to the first batch − import torch, lightning, mlflow": 1.0,
    }
    rows = {
        "manifest": {"open_seconds": 1.0, "split_seconds": 4.0, "memory_mb": 500.0},
        "set-up of 8 images": {"ms_per_image": 5.0},
        "set-up of 16 images": {"ms_per_image": 6.0},
    }
    found = values(GROUPS["growth"](make_plan()), rows=rows)
    assert found == {
        "100 rows: open": 1.0,
        "100 rows: split": 4.0,
        "100 rows: memory": 500.0,
        "time per image: 16 images / 8": 1.2,
    }
