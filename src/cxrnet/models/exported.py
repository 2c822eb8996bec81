"""A bundle as one graph: images of its size in, calibrated probabilities out; for torch.export, ONNX and eight bits.

The graph takes ``images``, ``(N, 1, H, W) uint8`` for any N, and gives ``probabilities``, ``(N, K) float32``, of the
training prevalences: normalisation, temperature and softmax are in it. Decoding and resizing are not, nor is the gate.
"""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cxrnet.errors import CxrnetError
from cxrnet.models.bundle import Bundle
from cxrnet.models.network import Network

UInt8Array = npt.NDArray[np.uint8]
Probabilities = Callable[[UInt8Array], npt.NDArray[np.float32]]

INPUT, OUTPUT = "images", "probabilities"
_OPSET = 18  # of ONNX: what onnxruntime reads since 2023
_KEY = "cxrnet"  # of the metadata


class Calibrated(nn.Module):
    """A network whose output are the probabilities of its bundle."""

    def __init__(self, network: Network, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, H, W) uint8 to probabilities (N, K) float32."""
        probabilities: Tensor = (self.network(images) / self.temperature).softmax(dim=1)
        return probabilities


def export_program(bundle: Bundle) -> torch.export.ExportedProgram:
    """Trace a bundle for any number of images.

    Raises:
        CxrnetError: its backbone can't be traced.
    """
    graph = Calibrated(bundle.network, bundle.temperature).eval()
    two = torch.zeros(2, 1, *bundle.network.config.size, dtype=torch.uint8)
    try:
        return torch.export.export(graph, (two,), dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1)}})
    except Exception as error:  # tracing runs other people's code, which may fail in any way
        reason = str(error).partition("\n")[0]
        raise CxrnetError(f"format: {bundle.network.config.backbone} can't be exported ({reason})") from error


def write_program(bundle: Bundle, file: Path, facts: Mapping[str, Any]) -> None:
    """Write the graph for ``torch.export.load``, whose ``extra_files`` has the facts as ``cxrnet.json``."""
    with _quiet():
        torch.export.save(export_program(bundle), file, extra_files={"cxrnet.json": json.dumps(facts)})


def write_onnx(bundle: Bundle, file: Path, facts: Mapping[str, Any]) -> None:
    """Write the graph as ONNX; the facts are its metadata ``cxrnet``, as JSON.

    Raises:
        CxrnetError: the packages aren't installed, or the backbone can't be exported.
    """
    needed("onnx", "onnxscript")
    import onnx

    with _quiet():
        program = torch.onnx.export(
            export_program(bundle), input_names=[INPUT], output_names=[OUTPUT], opset_version=_OPSET, dynamo=True
        )
    assert program is not None
    model = program.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = _KEY, json.dumps(facts)
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def write_int8(bundle: Bundle, images: UInt8Array, file: Path, facts: Mapping[str, Any]) -> None:
    """Write the graph with weights and activations of eight bits, whose ranges are those on some images.

    Args:
        bundle: is exported.
        images: of the training, ``(N, 1, H, W) uint8``.
        file: to write.
        facts: its metadata.
    """
    needed("onnxruntime")
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(images[:, None])

        def get_next(self) -> dict[str, UInt8Array] | None:
            image = next(self._left, None)
            return None if image is None else {INPUT: image}

    whole, prepared = file.with_suffix(".whole"), file.with_suffix(".prepared")
    try:
        write_onnx(bundle, whole, facts)
        with _quiet():
            quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
            quantization.quantize_static(str(prepared), str(file), Images(), per_channel=True)
    finally:
        for each in (whole, prepared):
            each.unlink(missing_ok=True)


def read_onnx(file: Path) -> Probabilities:
    """Open an ONNX file with onnxruntime, on the CPU."""
    needed("onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def probabilities(images: UInt8Array) -> npt.NDArray[np.float32]:
        return np.asarray(session.run([OUTPUT], {INPUT: images})[0])

    return probabilities


def read_program(file: Path) -> Probabilities:
    """Open a file of ``torch.export``."""
    module = torch.export.load(file).module()

    def probabilities(images: UInt8Array) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(images)).numpy())

    return probabilities


def needed(*packages: str) -> None:
    """Refuse to go on without some packages.

    Raises:
        CxrnetError: one is not installed.
    """
    for name in packages:
        try:
            __import__(name)
        except ImportError as error:
            raise CxrnetError(f"format: {name} is not installed; pip install 'cxrnet[onnx]'") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporters, which print their steps, off the console."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
