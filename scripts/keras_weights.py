"""Weights of torchvision's MobileNetV2 as a file of Keras: ``python scripts/keras_weights.py <from> <to>.weights.h5``.

So that the Keras recipe of ``scripts/benchmark`` starts from the same weights as cxrnet where Keras' own can't be
downloaded (``keras_weights=<to>``). To be run with the Python that has TensorFlow; needs ``safetensors`` there.

Both libraries build the same layers in the same order. They differ in three points. Two are made up for in the numbers:
Keras' images lie in -1..1 and aren't normalised by channel (at the border of the first layer that isn't exact), and its
batch norms add 1e-3 to the variance instead of 1e-5. The third stays: where a convolution has stride 2 Keras pads on
one side only, so that each of the five such layers sees the image moved by a pixel of its own.
"""

import argparse
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from safetensors.numpy import load_file

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # of ImageNet, as torchvision has them
EPSILON, KERAS_EPSILON = 1e-5, 1e-3


def modules(file: str) -> Iterator[dict[str, Any]]:
    """Yield the parameters of each convolution and batch norm, by their names in torch, in the order of the network."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in load_file(file).items():
        module, _, parameter = name.rpartition(".")
        found.setdefault(module, {})[parameter] = value.astype(np.float64)
    for name in sorted(found, key=lambda name: [int(number) for number in re.findall(r"\d+", name)]):
        yield found[name]


def main() -> None:
    """Write the file, and say how many layers were filled."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", help="a .safetensors file with the features of torchvision's mobilenet_v2")
    parser.add_argument("target", help="a file to write, <name>.weights.h5")
    words = parser.parse_args()

    import keras

    network = keras.applications.MobileNetV2(include_top=False, weights=None)
    layers = [layer for layer in network.layers if layer.weights]
    moved = 0.0  # what the first convolution no longer gets: the mean of the images
    for layer, module in zip(layers, modules(words.source), strict=True):
        if isinstance(layer, keras.layers.BatchNormalization):
            gain = np.sqrt((module["running_var"] + KERAS_EPSILON) / (module["running_var"] + EPSILON))
            mean = module["running_mean"] - moved
            layer.set_weights([module["weight"] * gain, module["bias"], mean, module["running_var"]])
            moved = 0.0
            continue
        kernel = module["weight"].transpose(2, 3, 1, 0)
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            kernel = kernel.swapaxes(2, 3)
        elif layer is layers[0]:
            moved = ((0.5 - MEAN) / STD) @ kernel.sum(axis=(0, 1))
            kernel = kernel / (2 * STD)[:, None]
        layer.set_weights([kernel])
    network.save_weights(words.target)
    print(f"{len(layers)} layers: {words.target}")


if __name__ == "__main__":
    main()
