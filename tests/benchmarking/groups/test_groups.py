"""Every job of every group calls what exists, and every ratio is made of the right numbers."""

import inspect
from dataclasses import replace
from importlib import import_module

import pytest

from cxrnet.benchmarking.contenders.ceiling import Steps
from cxrnet.benchmarking.contenders.loop import Training
from cxrnet.benchmarking.jobs import CONTENDERS, Job
from cxrnet.benchmarking.measuring import Table
from cxrnet.benchmarking.plan import NUMBERS
from cxrnet.benchmarking.running import GROUPS


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_job_names_a_function_and_its_arguments(make_plan, name, device):
    group = GROUPS[name](make_plan("compile=true", "arithmetic=true", device=device))
    jobs = [*group.before, *group.jobs]
    assert len({job.name for job in jobs}) == len(jobs)
    assert set(group.numbers) <= set(NUMBERS)
    for job in jobs:
        check_arguments(job)
        assert bool(job.interpreter) == job.function.startswith("keras_recipe")


def check_arguments(job: Job) -> None:
    module, _, name = job.function.partition(":")
    function = getattr(import_module(f"{CONTENDERS}.{module}"), name)
    bound = inspect.signature(function).bind(**job.settings)
    if "settings" in bound.arguments:
        made = {"plain": Training, "timm_recipe": Training, "ceiling": Steps, "timm_script": Steps}[module]
        rest = {name: value for name, value in bound.arguments["settings"].items() if name != "backbone"}
        made(**(rest if made is Steps else bound.arguments["settings"]))


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
        "bf16: timm's benchmark.py": 50.0,
    }  # fmt: skip
    rows = {f"resnet50, {name}": {"images_per_second": rate} for name, rate in rates.items()}
    assert values(group, rows=rows) == {
        "resnet50, fp32: cxrnet / ceiling, channels last": pytest.approx(10.5 / 11),
        "resnet50, fp32: cxrnet / plain loop": pytest.approx(1.5),
        "resnet50, bf16: cxrnet / ceiling, channels last": pytest.approx(0.98),
        "resnet50, bf16: cxrnet / resnet50, fp32: plain loop": pytest.approx(3.5),
        "resnet50, bf16: cxrnet, last layers / plain loop, channels last, last layers": pytest.approx(2.0),
        "resnet50, bf16: ceiling, channels last / timm's step": pytest.approx(1.25),
        "resnet50, bf16: ceiling, channels last / timm's benchmark.py": pytest.approx(0.5),
    }
    targets = {ratio.name: ratio.target for ratio in group.ratios(Table({}))}
    assert targets["resnet50, fp32: cxrnet / plain loop"] == 1.4
    assert targets["resnet50, bf16: cxrnet / resnet50, fp32: plain loop"] == 3.0
    on_gpu = {r.name: r.target for r in GROUPS["train"](make_plan(device="cuda")).ratios(Table({}))}
    assert on_gpu["resnet50, fp32: cxrnet / plain loop"] is None
    assert on_gpu["resnet50, bf16: ceiling, channels last / timm's step"] == 1.0
    assert on_gpu["resnet50, bf16: ceiling, channels last / timm's benchmark.py"] == 1.0


def test_timms_own_script_is_run_where_it_is_given(make_plan, tmp_path):
    (tmp_path / "benchmark.py").touch()
    for plan, there in ((make_plan(), False), (make_plan(f"timm_benchmark={tmp_path}/benchmark.py"), True)):
        jobs = [job for job in GROUPS["train"](plan).jobs if job.function == "timm_script:train"]
        assert [job.name for job in jobs] == [f"resnet50, {p}: timm's benchmark.py" for p in ("fp32", "bf16")]
        assert all((job.missing is None) == there for job in jobs)
        assert {job.settings["script"] for job in jobs} == {str(tmp_path / "benchmark.py") if there else None}


def test_compiling_is_told_with_what_it_costs_and_when_it_has_paid(make_plan):
    group = GROUPS["train"](make_plan("compile=true", "precisions=[32-true]"))
    rows = {
        "cxrnet": {"images_per_second": 10.0, "warm_up_seconds": 1.0},
        "cxrnet, compiled": {"images_per_second": 20.0, "warm_up_seconds": 61.0},
        "ceiling, channels last": {"images_per_second": 20.0, "warm_up_seconds": 1.0},
        "ceiling, channels last, compiled": {"images_per_second": 16.0, "warm_up_seconds": 31.0},
    }
    assert values(group, rows={f"resnet50, fp32: {name}": row for name, row in rows.items()}) == {
        "resnet50, fp32: cxrnet / ceiling, channels last": 0.5,
        "resnet50, fp32: cxrnet, compiled / cxrnet": 2.0,
        "resnet50, fp32: cxrnet, compiled: compiling takes": 60.0,
        "resnet50, fp32: cxrnet, compiled: has paid after": pytest.approx(1200),
        "resnet50, fp32: ceiling, channels last, compiled / ceiling, channels last": 0.8,
        "resnet50, fp32: ceiling, channels last, compiled: compiling takes": 30.0,
    }
    (own,) = (job for job in group.jobs if job.name == "resnet50, fp32: cxrnet, compiled")
    assert "compile=true" in own.settings["overrides"]


def test_arithmetic_is_measured_in_fp32_on_processors(make_plan):
    def found(*changes: str, device: str = "cpu") -> list[str]:
        jobs = GROUPS["train"](make_plan(*changes, device=device)).jobs
        return [job.name for job in jobs if "arithmetic" in job.function]

    assert found("arithmetic=true") == ["resnet50, fp32: ceiling, channels last, bf16 arithmetic"]
    assert found() == found("arithmetic=true", device="cuda") == []


@pytest.mark.parametrize(("wanted", "epochs", "steps"), [(1, 2, 1), (3, 2, 3), (8, 4, 3)])
def test_waiting_is_measured_over_as_many_steps_as_are_asked_for(make_plan, wanted, epochs, steps):
    group = GROUPS["data"](make_plan(f"data.steps={wanted}"))  # 20 images, 8 a batch
    (job,) = (job for job in group.jobs if job.name == "cxrnet, epochs")
    (phases,) = (word for word in job.settings["overrides"] if word.startswith("schedule.phases="))
    assert f"epochs: {epochs}," in phases
    assert f"+trainer.limit_train_batches={steps}" in job.settings["overrides"]


def test_data_predict_startup_and_growth(make_plan):
    rows = {
        "decoder": {"images_per_second": 200.0},
        "decoder, both sizes": {"images_per_second": 195.0},
        "cxrnet, first set-up": {"images_per_second": 190.0},
        "cxrnet, epochs": {"waiting_share": 0.02},
    }
    found = values(GROUPS["data"](make_plan()), rows=rows)
    assert found == {
        "cxrnet, first set-up / decoder": 0.95,
        "cxrnet, first set-up / decoder, both sizes": pytest.approx(190 / 195),
        "share of later epochs spent waiting": 0.02,
    }
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
