"""Exported models asked through their own runtimes, all in the same way."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from shared.artifacts.description import Artifact
from shared.artifacts.formats import FORMATS, IMAGES, LOGITS, PROBABILITIES, require_packages
from shared.errors import UserError, is_out_of_memory, summarise_error
from shared.machine.interpreters import list_siblings

Answer = tuple[np.ndarray, np.ndarray]  # logits (n, K) and probabilities (n, K), float32


@dataclass(frozen=True)
class Loaded:
    """A model in its runtime. `answer` takes images as the model wants them, uint8 or normalised float32; `list_dtypes`
    names the dtypes that are computed with, as far as the runtime shows them."""

    answer: Callable[[np.ndarray], Answer]
    list_dtypes: Callable[[], set[str]]
    prepare: Callable[[np.ndarray], np.ndarray]

    def __call__(self, pixels: np.ndarray) -> Answer:
        """Logits and probabilities of images (n, S, S, C) of values 0 to 255, as `Preprocessing.scale` returns them."""
        return self.answer(self.prepare(pixels))


def load_artifact(artifact: Artifact, threads: int = 0) -> Loaded:
    """The model, ready to be called with images (n, S, S, C) of values 0 to 255. 0 leaves the number of threads to its
    runtime.

    Raises:
        UserError: where its runtime is not installed, or cannot load it.
    """
    require_packages(artifact.format)
    own = {"onnx": load_onnx, "litert": load_litert}
    try:
        load = own.get(artifact.format) or find_loader(artifact.format)
        answer, list_dtypes = load(artifact.file, threads)
    except Exception as error:  # the runtimes' own errors have no base in common
        if isinstance(error, UserError | ModuleNotFoundError) or is_out_of_memory(error):
            raise
        raise UserError(f"{artifact.file} cannot be loaded ({summarise_error(error)}); export the model "
                        "again") from error
    return Loaded(answer, list_dtypes, build_preparation(artifact))


def load_decoding(artifact: Artifact) -> Callable[[list[bytes]], Answer]:
    """The signature of a SavedModel that decodes and scales images itself: contents of JPEG or PNG files to logits and
    probabilities (n, K)."""
    return import_module(f"{FORMATS[artifact.format].sibling}_project.loading").load_decoding(artifact.file)


def build_preparation(artifact: Artifact) -> Callable[[np.ndarray], np.ndarray]:
    """What makes the model's input of images of values 0 to 255."""
    if artifact.input == "float":
        return artifact.preprocessing.normalise
    return round_pixels


def round_pixels(pixels: np.ndarray) -> np.ndarray:
    """Values 0 to 255 as uint8. What scaling in floating point has put beyond the range is cut off."""
    return pixels if pixels.dtype == np.uint8 else np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def find_loader(form: str) -> Callable[[Path, int], tuple[Callable, Callable]]:
    """The function of the sibling whose framework reads the format."""
    sibling = FORMATS[form].sibling
    if sibling not in list_siblings():
        raise UserError(f"the format {form} is read by {sibling}_project, whose folder is not here; export to onnx")
    return getattr(import_module(f"{sibling}_project.loading"), f"load_{form}")


def load_onnx(file: Path, threads: int) -> tuple[Callable, Callable]:
    """https://onnxruntime.ai/docs/api/python/api_summary.html"""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings are about nodes that stay on the CPU
    if threads:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: tuple(session.run([LOGITS, PROBABILITIES], {IMAGES: images})), lambda: list_onnx_dtypes(file)


def list_onnx_dtypes(file: Path) -> set[str]:
    import onnx

    graph = onnx.load(str(file), load_external_data=False).graph
    kinds = {tensor.data_type for tensor in graph.initializer}
    kinds |= {value.type.tensor_type.elem_type for values in (graph.input, graph.output, graph.value_info)
              for value in values}
    kinds |= {attribute.i for node in graph.node if node.op_type == "Cast" for attribute in node.attribute
              if attribute.name == "to"}
    return {onnx.TensorProto.DataType.Name(kind).lower() for kind in kinds - {0}}


def load_litert(file: Path, threads: int) -> tuple[Callable, Callable]:
    """https://ai.google.dev/edge/litert"""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=threads or None)
    run = interpreter.get_signature_runner("serving_default")

    def answer(images: np.ndarray) -> tuple[Any, Any]:
        found = run(**{IMAGES: images})
        return found[LOGITS], found[PROBABILITIES]
    return answer, lambda: {np.dtype(tensor["dtype"]).name for tensor in interpreter.get_tensor_details()}
