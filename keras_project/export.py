"""Export trained weights of either sibling from Keras: to SavedModel, LiteRT, ONNX, and to Keras' own format."""

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

# This program runs the code beside it, even where the environment was installed from another clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shared.artifacts.command import run_export_command
from shared.artifacts.formats import IMAGES, OPSET
from shared.artifacts.making import Job, make_artifacts


def export(job: Job) -> list[Path]:
    """Write the formats that `job` asks for, check them, and return their folders.

    Raises:
        UserError: where a format cannot take the model, or an exported model does not answer as the trained one.
    """
    from keras_project.artifact import Server, build_served
    from keras_project.executor import require_tensorflow
    from keras_project.models import build_model, load_weights, neutral_shapes
    from keras_project.runtime import build_runtime
    from keras_project.views import average_views

    require_tensorflow("export.py")
    build_runtime(job.trained.config)
    model = build_model(job.trained.config, job.trained)
    load_weights(model, job.trained.read_weights(neutral_shapes(model)))
    model = average_views(model, job.trained.config.evaluate.tta)

    def answer(images: np.ndarray) -> np.ndarray:
        """Logits (n, K) of normalised images (n, S, S, C)."""
        return model(images, training=False).numpy()

    served = build_served(model, job.trained.preprocessing, job.input)
    server = Server(served, model, job.trained.preprocessing)
    return make_artifacts(job, answer, {
        "savedmodel": partial(write_savedmodel, server),
        "litert": partial(write_litert, server, job.quantisation, job.calibration_inputs),
        "onnx": partial(write_onnx, server), "keras": partial(write_keras, served)})


def write_savedmodel(server: Any, folder: Path) -> None:
    """https://www.tensorflow.org/guide/saved_model"""
    import tensorflow as tf

    tf.saved_model.save(server, str(folder), signatures={"serving_default": server.answer,
                                                         "serving_bytes": server.answer_encoded})


def write_litert(server: Any, quantisation: str, calibration: np.ndarray | None, file: Path) -> None:
    """https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quantization"""
    import tensorflow as tf

    with tempfile.TemporaryDirectory(dir=file.parent) as folder:  # only from there come the names of a signature
        tf.saved_model.save(server, folder, signatures={"serving_default": server.answer})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        if quantisation:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantisation == "fp16":
            converter.target_spec.supported_types = [tf.float16]
        if quantisation == "int8":
            converter.representative_dataset = lambda: ({IMAGES: image[None]} for image in calibration)
        file.write_bytes(converter.convert())


def write_onnx(server: Any, file: Path) -> None:
    """https://github.com/onnx/tensorflow-onnx"""
    import onnx
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(server.answer, server.answer.input_signature, OPSET["keras"])
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, str(file))


def write_keras(served: Any, file: Path) -> None:
    """https://keras.io/guides/serialization_and_saving"""
    served.save(file)


if __name__ == "__main__":
    run_export_command(export, "keras", "export.py", __doc__)
