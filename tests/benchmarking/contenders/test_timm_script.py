"""What is said to timm's own benchmark.py, and read from its answer. The script itself isn't in timm's package."""

import pytest

from cxrnet.benchmarking.contenders import timm_script
from cxrnet.benchmarking.contenders.ceiling import Steps

STEPS = {"size": [32, 48], "batch_size": 8, "steps": 3, "bf16": True, "channels_last": True, "device": "cpu"}
SAID = """--result
{
    "model": "mobilenetv2_100",
    "train_samples_per_sec": 62.52,
    "train_step_time": 124.697,
    "train_batch_size": 8,
    "train_img_size": 48,
    "param_count": 2.23
}
"""


def test_the_rate_is_read_from_what_it_says():
    assert timm_script.rate(f"Benchmarking in amp_bfloat16 precision.\n{SAID}", Steps(**STEPS)) == 62.52


def test_smaller_batches_and_a_failure_are_no_rate():
    with pytest.raises(RuntimeError, match=r"took batches of 8 images, for want of memory; give a batch_size below 16"):
        timm_script.rate(SAID, Steps(**{**STEPS, "batch_size": 16}))
    with pytest.raises(RuntimeError, match=r"benchmark.py: out of memory"):
        timm_script.rate('--result\n{"model": "resnet50", "error": "out of memory"}', Steps(**STEPS))


def test_on_a_gpu_its_words_are_those_that_timm_publishes():
    words = " ".join(timm_script.words("mobilenet_v2", Steps(**{**STEPS, "device": "cuda", "steps": 100})))
    assert words == (
        "--bench train --model mobilenetv2_100 --batch-size 8 --input-size 3 32 48 --num-classes 4 --num-warm-iter 3 "
        "--num-bench-iter 100 --channels-last --amp --amp-dtype bfloat16"
    )


def test_elsewhere_it_is_told_the_device_and_fp32_is_its_own_precision():
    words = " ".join(timm_script.words("resnet50", Steps(**{**STEPS, "bf16": False})))
    assert words.endswith("--num-bench-iter 5 --channels-last --device cpu")
