"""The Keras recipe: image_dataset_from_directory, augmentation layers, a base from keras.applications.

As Keras's guide "Transfer learning & fine-tuning" has it. This module imports nothing of cxrnet: it runs as a script,
because TensorFlow often lives in an environment of its own.
"""

import json
import sys
import time
from typing import Any

BASES = {"mobilenet_v2": "MobileNetV2", "resnet50": "ResNet50", "vgg16": "VGG16", "vgg19": "VGG19"}
MODULES = {"mobilenet_v2": "mobilenet_v2", "resnet50": "resnet", "vgg16": "vgg16", "vgg19": "vgg19"}


def train(
    root: str,
    backbone: str,
    weights: "str | None",
    trainable: str,
    size: list[int],
    batch_size: int,
    augment: bool,
    epochs: int,
    steps: "int | None",
    lr: float,
    seed: int,
    device: str,
) -> dict[str, float]:
    """From image files to a trained model; the arguments are those of the plain loop.

    ``weights`` is ``None``, ``imagenet`` or a file of Keras.
    """
    import keras
    import tensorflow as tf

    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    keras.utils.set_random_seed(seed)
    begin = time.perf_counter()
    splits = [
        keras.utils.image_dataset_from_directory(
            f"{root}/{split}", image_size=size, batch_size=batch_size, shuffle=split == "train", seed=seed
        )
        for split in ("train", "val")
    ]
    classes = len(splits[0].class_names)
    train, val = (split.prefetch(tf.data.AUTOTUNE) for split in splits)
    if steps is not None:
        train, val = train.take(steps), val.take(1)
    model = _model(backbone, weights, trainable, size, augment, classes)
    model.compile(
        keras.optimizers.Adam(lr), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    clock = _clock()
    history = model.fit(train, validation_data=val, epochs=epochs, verbose=0, callbacks=[clock]).history
    first = 1 if epochs > 1 else 0  # the first epoch builds the graph
    images = min(len(splits[0].file_paths), (steps or 10**9) * batch_size) * (epochs - first)
    return {
        "seconds": time.perf_counter() - begin,
        "images_per_second": images / sum(clock.seconds[first:]),
        "val_accuracy": history["val_accuracy"][-1],
    }


def _model(backbone: str, weights: "str | None", trainable: str, size: "list[int]", augment: bool, classes: int) -> Any:  # noqa: ANN401 (there may be no Keras to take types from)
    import keras

    applications = keras.applications
    base = getattr(applications, BASES[backbone])(include_top=False, weights=weights, input_shape=(*size, 3))
    base.trainable = trainable == "all"
    inputs = keras.Input((*size, 3))
    x = inputs
    if augment:
        layers = keras.layers
        x = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.02), layers.RandomZoom(0.05)])(x)
    x = getattr(applications, MODULES[backbone]).preprocess_input(x)
    x = base(x, training=trainable == "all")
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, keras.layers.Dense(classes)(x))


def _clock() -> Any:  # noqa: ANN401 (as above)
    import keras

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        """Seconds of each epoch, without its validation."""

        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []
            self.start = self.end = 0.0

        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            self.end = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            self.seconds.append(self.end - self.start)

    return Clock()


if __name__ == "__main__":
    request = json.load(sys.stdin)
    try:
        import keras  # noqa: F401 (whether they are there)
        import tensorflow  # noqa: F401
    except ImportError as error:
        print("\n" + json.dumps({"missing": f"{error.name} not installed; see keras_python"}))
    else:
        print("\n" + json.dumps({"numbers": train(**request["settings"])}))
