"""The Keras recipe: image_dataset_from_directory, augmentation layers, a base from keras.applications.

As in Keras's guide "Transfer learning & fine-tuning". Runs as a script and imports nothing of cxrnet, because
TensorFlow often lives in an environment of its own.
"""

import json
import sys
import time
from typing import Any

BASES = {"mobilenet_v2": "MobileNetV2", "resnet50": "ResNet50", "vgg16": "VGG16", "vgg19": "VGG19"}
MODULES = {"mobilenet_v2": "mobilenet_v2", "resnet50": "resnet", "vgg16": "vgg16", "vgg19": "vgg19"}


def train(task: "dict[str, Any]") -> "dict[str, float]":
    """Train from image files on a :class:`shared.Task`; ``weights`` is ``None``, ``imagenet`` or a file of Keras."""
    import keras
    import tensorflow as tf

    if task["device"] == "cpu":
        tf.config.set_visible_devices([], "GPU")
    keras.utils.set_random_seed(task["seed"])
    begin = time.perf_counter()
    splits = [
        keras.utils.image_dataset_from_directory(
            f"{task['root']}/{split}", image_size=task["size"], batch_size=task["batch_size"],
            shuffle=split == "train", seed=task["seed"],
        )
        for split in ("train", "val")
    ]  # fmt: skip
    train, val = (split.prefetch(tf.data.AUTOTUNE) for split in splits)
    if task["steps"] is not None:
        train, val = train.take(task["steps"]), val.take(1)
    model = _model(task, len(splits[0].class_names))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(task["lr"]), loss, metrics=["accuracy"])
    clock = _clock()
    history = model.fit(train, validation_data=val, epochs=task["epochs"], verbose=0, callbacks=[clock]).history
    first = 1 if task["epochs"] > 1 else 0  # the first epoch builds the graph
    images = min(len(splits[0].file_paths), (task["steps"] or 10**9) * task["batch_size"])
    return {
        "seconds": time.perf_counter() - begin,
        "images_per_second": images * (task["epochs"] - first) / sum(clock.seconds[first:]),
        "val_accuracy": history["val_accuracy"][-1],
    }


def _model(task: "dict[str, Any]", classes: int) -> Any:  # noqa: ANN401 (there may be no Keras to take types from)
    import keras
    from keras import applications, layers

    shape, backbone = (*task["size"], 3), task["backbone"]
    base = getattr(applications, BASES[backbone])(include_top=False, weights=task["weights"], input_shape=shape)
    base.trainable = task["trainable"] == "all"
    x = inputs = keras.Input(shape)
    if task["augment"]:
        x = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.02), layers.RandomZoom(0.05)])(x)
    x = getattr(applications, MODULES[backbone]).preprocess_input(x)
    x = base(x, training=base.trainable)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(classes)(x))


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
    _, settings = json.load(sys.stdin)
    try:
        import keras  # noqa: F401 (whether they are there)
        import tensorflow  # noqa: F401
    except ImportError as error:
        print("\n" + json.dumps({"missing": f"{error.name} not installed; see keras_python"}))
    else:
        print("\n" + json.dumps(train(**settings)))
