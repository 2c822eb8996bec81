#!/usr/bin/env bash
# What a GPU can do, in less than eight minutes: training in bf16 against a resident batch and timm's own step, a head
# on frozen features, prediction. The tables and the JSON stand in outputs/benchmarks/<time>/.
#
#     bash scripts/benchmark/gpu.sh                                    on the first GPU
#     bash scripts/benchmark/gpu.sh timm_benchmark=<benchmark.py>      timm's script too, a file of its repository
#     bash scripts/benchmark/gpu.sh batch_size=64                      for a GPU of 16 GB; further words as of run.py
#
# PYTHON=<python>  with cxrnet installed; .venv/bin/python by default.
# SECONDS_LEFT=470 ends it; what was measured by then is kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python="${PYTHON:-.venv/bin/python}"

exec timeout --foreground --signal=TERM "${SECONDS_LEFT:-470}" "$python" scripts/benchmark/run.py \
    "only=[train,frozen,predict]" device=cuda repeats=1 batch_size=256 \
    "models=[resnet50,mobilenet_v2,vgg16]" "precisions=[bf16-mixed]" train.steps=20 \
    "train.contenders=[cxrnet, 'cxrnet, last layers', 'ceiling, channels last', \"timm's step\", \"timm's benchmark.py\"]" \
    model.weights=none frozen.epochs=4 "frozen.views=[2]" predict.images=4000 \
    "$@"
