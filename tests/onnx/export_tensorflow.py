"""Keras' own networks as tf2onnx writes them: channels-last graphs full of transpositions.

    pip install tensorflow-cpu tf2onnx      # in an environment of its own
    python tests/onnx/export_tensorflow.py FOLDER

writes models with random weights, and beside each an .npz of inputs and of what TensorFlow computes.
``.ci/long`` runs it, and test_tensorflow.py with ``NNLITE_TEST_TENSORFLOW=FOLDER``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
import tf2onnx

NETWORKS = {
    "mobilenet": lambda k: k.MobileNet((64, 64, 3), alpha=0.25, weights=None, classes=7),
    "mobilenet_v2": lambda k: k.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, classes=7),
    "mobilenet_v3": lambda k: k.MobileNetV3Small((64, 64, 3), alpha=0.75, weights=None, classes=7),
    "resnet50": lambda k: k.ResNet50(weights=None, input_shape=(64, 64, 3), classes=7),
    "inception_v3": lambda k: k.InceptionV3(weights=None, input_shape=(96, 96, 3), classes=7),
    "densenet121": lambda k: k.DenseNet121(weights=None, input_shape=(64, 64, 3), classes=7),
}
ONCE = ("inception_v3", "densenet121")
"""The large ones: in one operator set."""


def stir(model: keras.Model, rng: np.random.Generator) -> None:
    """Give batch normalisation statistics that are not 0 and 1, as training does."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([
                rng.uniform(0.5, 1.5, w.shape) if "variance" in w.name or "gamma" in w.name
                else rng.normal(0, 0.2, w.shape)
                for w in layer.weights
            ])  # fmt: skip


def write(name: str, opset: int, folder: Path) -> None:
    """One network in one operator set, with inputs and outputs."""
    keras.utils.set_random_seed(1)
    rng, model = np.random.default_rng(0), NETWORKS[name](keras.applications)
    stir(model, rng)
    sides = model.input_shape[1:]

    def function(x: tf.Tensor) -> tf.Tensor:
        return model(x, training=False)

    signature = [tf.TensorSpec([None, *sides], tf.float32, name="x")]
    path = folder / f"{name}_{opset}.onnx"
    tf2onnx.convert.from_function(
        tf.function(function), input_signature=signature, opset=opset, output_path=str(path)
    )
    x = rng.standard_normal((2, *sides)).astype(np.float32)
    np.savez(path.with_suffix(".npz"), x=x, y=np.asarray(function(tf.constant(x))))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for which in NETWORKS:
        for operators in (13,) if which in ONCE else (11, 13, 18):
            write(which, operators, target)
            print(which, operators, flush=True)
