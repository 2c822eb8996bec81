"""``python scripts/benchmark/run.py``: the arithmetic, one small run of each kind, and what is refused."""

import inspect
import json
import operator
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from cxrnet.data.duplicates import find_duplicates
from cxrnet.data.images.files import find_images
from cxrnet.data.images.store import load_images
from cxrnet.data.sources.folder import folder
from cxrnet.errors import CxrnetError

BENCHMARK = Path(__file__).resolve().parents[2] / "scripts" / "benchmark"
sys.path.insert(0, str(BENCHMARK))

import cxrnet_jobs  # noqa: E402
import data_jobs  # noqa: E402
import run  # noqa: E402
import shared  # noqa: E402
import timm_jobs  # noqa: E402
import torch_jobs  # noqa: E402
from groups import GROUPS, Plan  # noqa: E402
from images import drawn_images, own_images  # noqa: E402
from jobs import Job  # noqa: E402
from options import read_options  # noqa: E402
from results import Group, Ratio, number_text, page, quotient, repaid_after, show  # noqa: E402
from shared import Task  # noqa: E402

SMALL = (
    "images=24", "size=[32,32]", "file_size=64", "batch_size=8", "repeats=1", "device=cpu", "model.weights=none",
    "models=[resnet50]", "frozen.epochs=2", "frozen.views=[1,2]", "train.steps=2", "predict.images=20",
    "predict.steps=1", "data.steps=2", "growth.rows=1000", "growth.images=[16,24]",
)  # fmt: skip
TASK = {"backbone": "mobilenet_v2", "size": [32, 32], "batch_size": 8, "device": "cpu"}
OWN = {"views": 1, "features_gb": 10, "compiled": False, "overrides": []}
AB = (("a", "seconds"), ("b", "seconds"))


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch):
    torch.set_num_threads(1)
    for module in (torch_jobs, timm_jobs):
        monkeypatch.setattr(module, "WORKERS", 0)  # starting them takes longer than the work


@pytest.fixture(scope="module")
def make_plan(tmp_path_factory):
    drawn = tmp_path_factory.mktemp("drawn")

    def make(*words: str, device: str = "cpu", weights: str = "none") -> Plan:
        return Plan(
            read_options([*SMALL, *words], list(GROUPS)), device, drawn, tmp_path_factory.mktemp("scratch"), weights
        )

    return make


@pytest.fixture(scope="module")
def images(draw, tmp_path_factory) -> Path:
    """Training and validation images of three classes."""
    root = tmp_path_factory.mktemp("images")
    for seed, (split, count) in enumerate((("train", 6), ("val", 3))):
        draw(root / split, images=count, seed=seed)
    return root


def rounds(*pairs: tuple) -> list[dict]:
    """Rounds in which a and b took so many seconds; ``None``: it wasn't measured."""
    return [{name: {"seconds": s} for name, s in zip("ab", pair, strict=True) if s is not None} for pair in pairs]


@pytest.mark.parametrize(
    ("pairs", "value"),
    [
        # Of medians it would be 20 / 20: the machine was slow in the second round, and slower still in the third.
        ([(36.0, 40.0), (20.0, 20.0), (9.0, 10.0)], 0.9),
        ([(6.0, None), (6.0, 3.0)], 2.0),
        ([(6.0, None), (None, 3.0), (6.0, 3.0)], None),
        ([(6.0, 0.0)], None),
        ([], None),
    ],
)
def test_ratios_are_taken_in_each_round_and_their_median_counts(pairs, value):
    came = Ratio("a / b", AB, quotient).over(rounds(*pairs))
    assert came["value"] == (None if value is None else pytest.approx(value))
    assert (came["extremes"] is None) == (value is None)


@pytest.mark.parametrize(
    ("target", "met"), [({"least": 2.0}, True), ({"least": 2.1}, False), ({"most": 2.0}, True), ({"most": 1.9}, False)]
)
def test_a_target_is_met_on_its_side(target, met):
    assert Ratio("a / b", AB, quotient, **target).over(rounds((6.0, 3.0)))["met"] is met
    assert Ratio("a / b", AB, quotient, **target).over([])["met"] is None


def test_formulas():
    assert Ratio("a", (("a", "seconds"),)).over(rounds((6.0, 3.0)))["value"] == 6.0
    assert Ratio("a - b", AB, operator.sub).over(rounds((6.0, 4.0)))["value"] == 2.0
    assert repaid_after(0.0, 60.0, 10.0, 20.0) == pytest.approx(1200)  # 120 s at 10 a second are 60 s at 20, and 60 s
    assert repaid_after(5.0, 0.0, 10.0, 20.0) == 0
    assert repaid_after(0.0, 60.0, 20.0, 20.0) is None


def test_a_group_is_shown_with_what_is_missing(capsys):
    jobs = [
        Job("a", "x:y", repeats=[{"seconds": s, "from": "file"} for s in (3.0, 1.0, 8.0)]),
        Job("b", "x:y", repeats=[{"seconds": s} for s in (1.5, 1.0, 4.0)]),
        Job("c", "x:y", missing="no such package"),
    ]
    ratios = [Ratio("a / b", AB, quotient, least=10), Ratio("c", (("c", "seconds"),))]
    result = Group("Some", ("seconds",), jobs, ratios).to_dict()
    assert result["jobs"]["a"]["median"] == {"seconds": 3.0, "from": "file"}
    assert [repeat["seconds"] for repeat in result["jobs"]["a"]["repeats"]] == [3.0, 1.0, 8.0]
    assert result["jobs"]["c"]["missing"] == "no such package"
    show(result)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["a", "3"] in lines
    assert ["c", "–"] in lines
    assert ["a", "/", "b", "2", "(1", "to", "2)", "≥", "10", "missed"] in lines
    written = page([result], "one processor", "python run.py")
    assert written.startswith(
        "one processor: `python run.py`\n\n## Some\n\n| median | seconds |\n| --- | ---: |\n| a | 3 |\n"
    )
    assert "| a / b | 2 (1 to 2) | ≥ 10 | missed |" in written
    assert [number_text(value) for value in (0.01234, 99.96, 1234.5)] == ["0.0123", "100", "1,234"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("only=[fast]", "only: 'fast' is none of frozen, "),
        ("frozen.epoch=3", "frozen.epoch: no such option"),
        ("repeats", "'repeats' is no option; give key=value"),
        ("frozen=3", r"frozen: 3; give"),
        ("repeats=0", "repeats: 0; give a whole number from 1 on"),
        ("seed=-1", "seed: -1; give a whole number from 0 on"),
        ("compile=2", "compile: 2; give true or false"),
        ("frozen.lr=0", "frozen.lr: 0; give a number above 0"),
        ("frozen.views=2", "frozen.views: 2; give a list"),
        ("growth.images=[]", r"growth.images: \[\]; give a list"),
        ("growth.images=[8,few]", r"growth.images: \[8, 'few'\]; give a list"),
        ("size=[224]", r"size: \[224\]; give height and width"),
        ("overrides=data.limit", r"overrides: data.limit; give a list, as \[data.num_workers=4\]"),
        ("models=[vgg11]", "models: 'vgg11' is none of .*mobilenet_v2"),
        ("precisions=[16-mixed]", "precisions: '16-mixed' is none of 32-true, bf16-mixed"),
        ("timm_benchmark=none.py", "timm_benchmark: there is no file 'none.py'; give timm's benchmark.py, or null"),
    ],
)
def test_a_mistake_is_refused(word, message):
    with pytest.raises(CxrnetError, match=f"^{message}"):
        read_options([word], list(GROUPS))


def test_the_commands_of_its_page_are_read():
    page = (BENCHMARK.parents[1] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    filled = re.sub("<[^<>]*>", sys.executable, page)
    commands = re.findall("`python scripts/benchmark/run.py ([^`]*)`", filled)
    assert len(commands) >= 4
    for command in commands:
        read_options(shlex.split(command), list(GROUPS))


def test_groups_are_chosen():
    for word, groups in (("only=frozen", ["frozen"]), ("only=[train,data]", ["train", "data"]), ("seed=1", [*GROUPS])):
        assert read_options([word], list(GROUPS)).only == groups


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_jobs_call_what_exists_and_ratios_are_of_jobs(make_plan, name, device):
    group = GROUPS[name](make_plan("compile=true", "arithmetic=true", device=device, weights="imagenet"))
    names = [job.name for job in (*group.before, *group.jobs)]
    assert len(set(names)) == len(names)
    for job in (*group.before, *group.jobs):
        module, _, function = job.function.partition(":")
        bound = inspect.signature(getattr(import_module(module), function)).bind(**job.settings)
        if function not in ("train", "setup") or module != "cxrnet_jobs":
            Task(**bound.arguments.get("settings", TASK))
    assert {job for ratio in group.ratios for job, _ in ratio.operands} <= set(names)
    assert len({ratio.name for ratio in group.ratios}) == len(group.ratios)


def test_contenders_of_the_training_are_chosen(make_plan):
    group = GROUPS["train"](make_plan("train.contenders=[cxrnet, 'ceiling, channels last']", "precisions=[bf16-mixed]"))
    assert [job.name for job in group.jobs] == ["resnet50, bf16: ceiling, channels last", "resnet50, bf16: cxrnet"]
    assert [ratio.name for ratio in group.ratios] == ["resnet50, bf16: cxrnet / ceiling, channels last"]
    with pytest.raises(CxrnetError, match=r"train\.contenders: 'ceilings' is none of plain loop; plain loop, channels"):
        GROUPS["train"](make_plan("train.contenders=ceilings"))


def test_targets(make_plan):
    def targets(name: str, **plan: str) -> dict[str, float]:
        return {ratio.name: ratio.least or ratio.most for ratio in GROUPS[name](make_plan(**plan)).ratios}

    assert targets("frozen")["time: Keras recipe, augmented / cxrnet, 2 views"] == 10
    assert "accuracy: cxrnet − plain loop" not in targets("frozen")  # of random weights it tells nothing
    assert "accuracy: cxrnet − plain loop" in targets("frozen", weights="imagenet")
    on_cpu, on_gpu = targets("train"), targets("train", device="cuda")
    assert on_cpu["resnet50, fp32: cxrnet / ceiling, channels last"] == 0.95
    assert on_cpu["resnet50, fp32: cxrnet / plain loop"] == 1.4
    assert on_cpu["resnet50, bf16: cxrnet / resnet50, fp32: plain loop"] == 3.0
    assert on_gpu["resnet50, fp32: cxrnet / plain loop"] is None
    assert on_gpu["resnet50, bf16: ceiling, channels last / timm's step"] == 1.0


def test_a_job_that_is_missing_or_failed_says_why(tmp_path, capsys):
    log, done = tmp_path / "jobs.log", {"line": ["-c", "pass"], "fails": False}
    one, broken, _ = jobs = [
        Job("one", "data_jobs:command", done),
        Job("broken", "data_jobs:command", {**done, "fails": True}),
        Job("unknown", "data_jobs:command", done, missing="not given"),
    ]
    assert len(list(run.measure(Group("Some", ("seconds",), jobs, ()), 2, log))) == 4
    assert [each["seconds"] > 0 for each in one.repeats] == [True, True]
    assert broken.failed.startswith("RuntimeError: python -c pass ended with 0")
    order = [line[3:] for line in log.read_text().splitlines() if line.startswith("== ")]
    assert order == ["one", "broken", "one"]
    said = capsys.readouterr().out
    assert all(words in said for words in ("one: ", "broken: failed, Runtime", "unknown: missing, not given", "2/2"))


@pytest.mark.skipif(find_spec("keras") is not None, reason="Keras is installed here")
def test_the_keras_recipe_runs_in_the_python_that_is_given(tmp_path):
    one = Job("Keras", "keras_recipe:train", {"task": TASK}, python=sys.executable)
    one.run(tmp_path / "jobs.log")
    assert one.missing == "keras not installed; see keras_python"


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet50", pytest.param("vgg16", marks=pytest.mark.slow)])
def test_the_plain_network_is_that_of_cxrnet(backbone):
    task = Task(**{**TASK, "backbone": backbone, "trainable": {"last": 5}})
    like = torch_jobs.starting_network(task, classes=3).eval()
    network = torch_jobs.torchvision_network(task, classes=3).eval()
    sizes = [sum(p.numel() for p in n.parameters() if p.requires_grad) for n in (like, network)]
    assert sizes[0] == sizes[1]
    network.load_state_dict(like.backbone.state_dict(), strict=False)
    head = network.fc if backbone == "resnet50" else network.classifier[-1]
    head.load_state_dict(like.head[-1].state_dict())
    grey = torch.randint(256, (1, 1, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(network(like.normalise(grey)), like(grey), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trainable", ["head", "all"])
def test_all_contenders_do_the_same_steps(images, tmp_path, trainable):
    count = [0]
    task = {**TASK, "root": str(images), "trainable": trainable, "epochs": 2, "steps": 2, "lr": 1e-3}
    own = {**OWN, "views": 0, "cache": str(tmp_path / "cache")}

    def step(*_args: object) -> None:
        count[0] += 1

    hook = register_optimizer_step_post_hook(step)
    try:
        for train in (torch_jobs.plain, timm_jobs.train, partial(cxrnet_jobs.train, True, **own)):
            numbers, count[0] = train(**task), count[0] - 4
            assert (count[0], numbers["images"]) == (0, 16)
            assert 0 <= numbers["val_accuracy"] <= 1
        if trainable == "all":
            for train in (torch_jobs.ceiling, timm_jobs.step, torch_jobs.ceiling_in_bf16_arithmetic):
                numbers, count[0] = train(**{**task, "channels_last": True}), count[0] - torch_jobs.WARM_UP - 2
                assert (count[0], numbers["images"]) == (0, 16)
            assert 0 <= numbers["logits_moved"] < 0.5
    finally:
        hook.remove()
        torch.backends.mkldnn.conv.fp32_precision = "none"


def test_cxrnet_from_a_cold_and_a_warm_cache(images, tmp_path):
    task = {**TASK, **OWN, "root": str(images), "trainable": "head", "augment": False, "epochs": 3}
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "left from before").touch()
    cold, warm = (cxrnet_jobs.train(fresh, cache=str(tmp_path / "cache"), **task) for fresh in (True, False))
    assert not (tmp_path / "cache" / "left from before").exists()
    assert cold["images"] == 18
    assert cold["val_loss"] == pytest.approx(warm["val_loss"], abs=1e-5)
    assert 0 <= warm["waiting_share"] < 1


def test_a_mistake_in_further_words_is_one_line(tmp_path):
    for word, message in (
        ("data.num_worker=4", "data.num_worker: .*data.num_workers"),
        ("data.num_workers=-1", "data.num_workers: -1"),
        ("cache=fast", "'cache=fast' can't be given"),
    ):
        with pytest.raises(CxrnetError, match=f"^{message}"):
            cxrnet_jobs.check([{**TASK, **OWN, "root": "x", "cache": str(tmp_path), "overrides": [word]}])


def test_the_rate_leaves_out_validation_and_the_first_epoch(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(shared.time, "perf_counter", lambda: clock[0])

    def batches(count: int, seconds: float):
        for _ in range(count):
            clock[0] += seconds
            yield torch.rand(6, 3, 8, 8), torch.arange(6) % 3

    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    val = [batch for batch in batches(5, 100.0)]  # noqa: C416
    epochs = [batches(2, 9.0), batches(2, 2.0), batches(2, 2.0)]
    watch, _ = torch_jobs.fit(
        Task(**{**TASK, "steps": 2}), network, epochs, val, lambda of: torch.optim.Adam(of.parameters())
    )
    assert watch.seconds == [18.0, 4.0, 4.0]
    assert watch.rate == 12 / 4


def test_the_clock_of_cxrnet_tells_steps_from_waiting(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock, module = cxrnet_jobs._Clock(), SimpleNamespace(device=torch.device("cpu"))
    for waiting, step, validation in ((5.0, 50.0, 500.0), (1.0, 3.0, 7.0), (1.0, 3.0, 7.0)):
        clock.on_train_epoch_start(None, module)
        for last in (False, True):
            now[0] += waiting
            clock.on_train_batch_start(None, module, {"label": torch.zeros(4)}, 0)
            now[0] += step
            clock.on_train_batch_end(SimpleNamespace(is_last_batch=last))
        now[0] += validation
    clock.on_train_end(None, module)
    assert (clock.waiting_share, clock.watch.rate) == (0.25, 1.0)
    assert clock.warm_up == 2 * 55 + 500 - (2 * 4 + 7)


def test_predicting_a_folder(images, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmark"])
    cxrnet_jobs.write_bundle(str(tmp_path / "bundle"), **TASK)
    output = tmp_path / "predictions.csv"
    numbers = cxrnet_jobs.predict(str(tmp_path / "bundle"), str(images / "val"), str(output), 4, "cpu")
    assert numbers["images"] == len(pd.read_csv(output)) == 9
    assert torch_jobs.plain_predict(root=str(images), **TASK)["images_per_second"] > 0
    for fused in (False, True):
        assert torch_jobs.ceiling_predict(fused, **TASK, steps=2, channels_last=True)["images"] == 16


def test_reading_and_growing(images, tmp_path):
    decoded = data_jobs.decode(str(images), [[32, 32], [16, 8]])
    own = cxrnet_jobs.setup(True, cache=str(tmp_path / "cache"), root=str(images), **TASK, **OWN)
    assert decoded["images"] == own["images"] == data_jobs.decode(str(images), [])["images"] == 27
    file = str(tmp_path / "rows.parquet")
    data_jobs.write_rows(file, 200, seed=0)
    assert data_jobs.manifest(file, seed=0)["rows"] == 200
    assert own["ms_per_image"] == pytest.approx(1000 * own["seconds"] / 27)


def test_drawn_images_are_as_many_as_asked_for_without_duplicates(tmp_path):
    root = drawn_images(tmp_path, 48, 64, seed=0)
    manifest = folder(root)
    assert manifest["split"].value_counts().to_dict() == {"train": 48, "val": 12}
    assert manifest.groupby("split")["label"].nunique().to_dict() == {"train": 4, "val": 4}
    manifest, pictures = load_images(manifest, (64, 64), "stretch", "fail")
    assert len(find_duplicates(pictures, manifest)) == 0
    assert np.asarray(pictures).shape[-2:] == (64, 64)


def test_own_images_are_split_unless_they_are_published_so_and_stay_as_they_are(tmp_path, draw):
    draw(tmp_path / "flat", images=10)
    before = [path.stat() for path in find_images(tmp_path / "flat").images]
    splits = folder(own_images(str(tmp_path / "flat"), tmp_path / "linked", seed=0))["split"].value_counts()
    assert splits.to_dict() == {"train": 24, "val": 6}
    assert [path.stat() for path in find_images(tmp_path / "flat").images] == before
    draw(tmp_path / "published" / "train", images=5)
    draw(tmp_path / "published" / "test", images=2)
    splits = folder(own_images(str(tmp_path / "published"), tmp_path / "linked", seed=0))["split"].value_counts()
    assert splits.to_dict() == {"train": 15, "val": 6}
    draw(tmp_path / "one" / "train", classes=("sick",))
    with pytest.raises(CxrnetError, match=r"data.root: .* holds one class \('sick'\)"):
        own_images(str(tmp_path / "one"), tmp_path / "linked", seed=0)


def test_timms_own_script():
    task = Task(**{**TASK, "size": [32, 48], "steps": 100, "bf16": True, "channels_last": True, "device": "cuda"})
    assert " ".join(timm_jobs.script_words(task)) == (
        "--bench train --model mobilenetv2_100 --batch-size 8 --input-size 3 32 48 --num-classes 4 --num-warm-iter 3 "
        "--num-bench-iter 100 --channels-last --amp --amp-dtype bfloat16"
    )
    said = 'amp.\n--result\n{"train_samples_per_sec": 62.5, "train_batch_size": %d}'
    assert timm_jobs.script_rate(said % 8, task) == 62.5
    with pytest.raises(RuntimeError, match="took batches of 4 images"):
        timm_jobs.script_rate(said % 4, task)
    with pytest.raises(RuntimeError, match="out of memory"):
        timm_jobs.script_rate('--result\n{"error": "out of memory"}', task)


def written(outputs: Path) -> tuple[Path, dict]:
    (results,) = (path for path in (outputs / "benchmarks").iterdir() if path.name != "images")
    return results, json.loads((results / "benchmark.json").read_text())


def test_a_mistake_is_one_line(capsys, tmp_path):
    assert run.main(["only=[fast]", f"outputs={tmp_path}/out"]) == 2
    assert capsys.readouterr().err.startswith("error: only: 'fast'")
    assert not (tmp_path / "out").exists()
    assert run.main(["--help"]) == 0
    assert "keras_python" in capsys.readouterr().out


def test_what_was_measured_stays_when_it_is_stopped_and_no_process_is_left(tmp_path):
    command = [sys.executable, str(BENCHMARK / "run.py"), *SMALL, "only=growth"]
    # A group of its own, so that the signal reaches the command alone.
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        for line in running.stdout:  # each job is printed as it ends, piped too
            if "manifest: " in line:
                break
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=60)
    assert (running.returncode, said.startswith("stopped; what was measured stays in '")) == (143, True)
    with pytest.raises(ProcessLookupError):
        os.killpg(running.pid, 0)
    results, numbers = written(tmp_path / "outputs")
    assert numbers["command"].startswith("python scripts/benchmark/run.py images=24")
    assert numbers["machine"]["device"] == "cpu"
    jobs = numbers["groups"]["growth"]["jobs"]
    assert jobs["manifest"]["median"]["rows"] == 1000
    assert jobs["set-up of 24 training images"]["repeats"] == []
    assert not (results / "scratch").exists()


@pytest.mark.slow
def test_all_groups_measure_every_contender_that_is_installed(tmp_path):
    assert run.main([*SMALL, "frozen.views=[2]", f"outputs={tmp_path}"]) == 0
    results, numbers = written(tmp_path)
    assert list(numbers["groups"]) == ["frozen", "train", "data", "predict", "startup", "growth"]
    assert (results / "growth.png").is_file()
    for group in numbers["groups"].values():
        for name, job in group["jobs"].items():
            assert job["repeats"] or job["missing"], name
            assert job["failed"] is None
        for ratio in group["ratios"]:
            assert ratio["value"] is not None or any(it in ratio["name"] for it in ("Keras", "timm's benchmark.py"))


def gpu(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(BENCHMARK / "gpu.sh"), *words]
    return subprocess.run(
        command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_what_a_gpu_is_asked_runs_on_a_processor_too(tmp_path):
    done = gpu(*SMALL, "only=[train,predict]", f"outputs={tmp_path}")
    assert done.returncode == 0, done.stderr
    results, numbers = written(tmp_path)
    assert list(numbers["groups"]) == ["train", "predict"]
    trained = numbers["groups"]["train"]["jobs"]
    assert "resnet50, bf16: timm's step" in trained
    assert all(job["repeats"] or job["missing"] for job in trained.values())
    assert "resnet50, bf16: cxrnet / ceiling, channels last" in (results / "benchmark.md").read_text(encoding="utf-8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_nothing_is_measured_on_a_gpu_that_is_not_there(tmp_path):
    done = gpu(f"outputs={tmp_path}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: machine: device: 'cuda' can't be used here")
