"""How TensorFlow's and Keras' own formats are read, without the code that the model was built with."""

import contextlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from shared.artifacts.formats import ENCODED, IMAGES, LOGITS, PROBABILITIES, list_keras_modules


def load_savedmodel(file: Path, threads: int) -> tuple[Callable, Callable]:
    """See `shared.artifacts.runtimes`."""
    limit_threads(threads)
    model = tf.saved_model.load(str(file))
    return call_by_names(model.signatures["serving_default"], model)


def load_decoding(file: Path) -> Callable[[list[bytes]], tuple[np.ndarray, np.ndarray]]:
    """See `shared.artifacts.runtimes`."""
    model = tf.saved_model.load(str(file))

    def answer(contents: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        found = model.signatures["serving_bytes"](**{ENCODED: tf.constant(contents)})
        return found[LOGITS].numpy(), found[PROBABILITIES].numpy()
    return answer


def load_keras(file: Path, threads: int) -> tuple[Callable, Callable]:
    """See `shared.artifacts.runtimes`."""
    from keras_project.executor import require_tensorflow  # here, since the other formats need nothing of this package

    require_tensorflow("a .keras file that was exported")
    limit_threads(threads)
    for module in list_keras_modules(file):  # which register the classes that the model consists of
        import_module(module)
    model = keras.saving.load_model(file, compile=False)
    images = tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype, name=IMAGES)
    function = tf.function(lambda images: model(images, training=False), input_signature=[images])
    return call_by_names(function.get_concrete_function(), model)


def limit_threads(threads: int) -> None:
    """Let TensorFlow use so many threads; 0 leaves it the choice. It is too late once TensorFlow has computed."""
    if threads:
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)


def call_by_names(function: Callable, model: object) -> tuple[Callable, Callable]:
    """A function of the model as `shared.artifacts.runtimes` wants it. The model's variables live as long as the model.
    """
    def answer(images: np.ndarray, model: object = model) -> tuple[np.ndarray, np.ndarray]:
        found = function(**{IMAGES: tf.constant(images)})
        return found[LOGITS].numpy(), found[PROBABILITIES].numpy()

    def list_dtypes() -> set[str]:
        graph = function.graph.as_graph_def()
        nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
        kinds = {kind for node in nodes for value in node.attr.values() for kind in (value.type, *value.list.type)}
        return {tf.as_dtype(kind).base_dtype.name for kind in kinds - {0}}
    return answer, list_dtypes
