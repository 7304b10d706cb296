"""The formats that a trained model can be exported to, as facts."""

import importlib.util
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from shared.errors import UserError

IMAGES, LOGITS, PROBABILITIES = "images", "logits", "probabilities"  # names that all formats have in common
ENCODED = "image_bytes"  # TensorFlow Serving decodes the base64 of inputs whose names end so
OPSET = {"lightning": 20, "keras": 18}  # of ONNX: the newest that each sibling's converter was tried with

EXTRA = {"ai_edge_litert": "ai-edge-litert"}  # modules that are called otherwise than their packages


@dataclass(frozen=True)
class Format:
    """`file` is what the model is called in its folder, and `makers` are the siblings that can write it. `sibling` is
    the one whose framework reads it, empty where the format has a runtime of its own. `packages` are the modules of the
    extra "export" that reading it takes, and `to_write` those that each maker needs beside them."""

    file: str
    makers: tuple[str, ...]
    sibling: str = ""
    packages: tuple[str, ...] = ()
    to_write: tuple[tuple[str, tuple[str, ...]], ...] = ()
    quantisations: tuple[str, ...] = ()


FORMATS = {
    "onnx": Format("model.onnx", ("lightning", "keras"), packages=("onnx", "onnxruntime"),
                   to_write=(("lightning", ("onnxscript",)), ("keras", ("tf2onnx",))),
                   quantisations=("int8", "dynamic")),
    "pt2": Format("model.pt2", ("lightning",), sibling="lightning"),
    # TensorFlow Serving looks for folders that are called by a version.
    "savedmodel": Format("1", ("keras",), sibling="keras"),
    "litert": Format("model.tflite", ("keras",), packages=("ai_edge_litert",),
                     quantisations=("int8", "dynamic", "fp16")),
    "keras": Format("model.keras", ("keras",), sibling="keras"),
}
QUANTISATIONS = {"int8": "weights and activations in 8 bits, calibrated on training images",
                 "dynamic": "weights in 8 bits, activations as they come", "fp16": "weights in 16 bits"}


def list_formats(maker: str, quantisation: str = "") -> list[str]:
    """What a sibling can write, with this quantisation where one is named."""
    return [name for name, known in FORMATS.items() if maker in known.makers
            and (not quantisation or quantisation in known.quantisations)]


def require_packages(name: str, maker: str = "") -> None:
    """Raise `UserError` where a package is missing to read the format, or to write it where a `maker` is named."""
    for package in (*FORMATS[name].packages, *dict(FORMATS[name].to_write).get(maker, ())):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{EXTRA.get(package, package)} is not installed here, which the format {name} needs; "
                            "install the extra export: pip install -e '.[export]'")


def list_keras_modules(file: Path) -> list[str]:
    """The modules of keras_project that have to be imported before Keras reads a .keras file, since they register the
    classes that its model consists of."""
    with zipfile.ZipFile(file) as archive:
        config = archive.read("config.json").decode()
    return sorted(set(re.findall(r'"module": "(keras_project\.[\w.]+)"', config)))
