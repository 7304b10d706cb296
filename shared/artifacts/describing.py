"""What stands beside an exported model: artifact.json for programs, README.md for people."""

from pathlib import Path
from typing import Any

from shared.artifacts.card.page import find_run, write_card
from shared.artifacts.description import DESCRIPTION, INPUTS, KIND, Artifact
from shared.artifacts.formats import (
    ENCODED,
    FORMATS,
    IMAGES,
    LOGITS,
    OPSET,
    PROBABILITIES,
    QUANTISATIONS,
    list_keras_modules,
)
from shared.artifacts.recipe import write_recipe
from shared.machine.console import format_percent
from shared.machine.files import to_json
from shared.machine.versions import list_versions
from shared.runs.trained import Trained
from shared.weights.file import Weights, fingerprint_weights

CONVERTERS = ("ai-edge-litert", "onnx", "onnxruntime", "onnxscript", "tf2onnx")


def describe_artifact(trained: Trained, maker: str, form: str, quantisation: str, input: str,
                      weights: dict[str, Any]) -> dict[str, Any]:
    """The content of artifact.json before the checks; `weights` are the tensors that the model was made of."""
    seen, classes = trained.preprocessing, len(trained.classes)
    image = {"shape": ["batch", seen.image_size, seen.image_size, seen.channels],
             "dtype": "uint8" if input == "uint8" else "float32", "layout": "NHWC", "meaning": INPUTS[input]}
    content = {
        "kind": KIND, "maker": maker, "format": form, "quantisation": quantisation, "input": input,
        "file": FORMATS[form].file, "classes": list(trained.classes), "inputs": {IMAGES: image},
        "outputs": {name: {"shape": ["batch", classes], "dtype": "float32"} for name in (LOGITS, PROBABILITIES)},
        "preprocessing": seen.to_dict(), "recipe": write_recipe(seen, input),
        "model": trained.config.model.name, "dataset": trained.config.dataset.name,
        "run": trained.folder.name if trained.folder else None, "weights": fingerprint_weights(weights),
        "weights_file": trained.weights.name,
        "versions": list_versions(CONVERTERS)}
    if form == "onnx":
        content["opset"] = OPSET[maker]
    if form == "savedmodel":
        content["signatures"] = {"serving_default": IMAGES, "serving_bytes": ENCODED}
    return content


def write_description(folder: Path, content: dict[str, Any]) -> None:
    """artifact.json in a folder that is not in its place yet."""
    (folder / DESCRIPTION).write_text(to_json(content, indent=2) + "\n", encoding="utf-8")


LOADING = {
    "onnx": """import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
logits, probabilities = session.run(["logits", "probabilities"], {"images": images})""",
    "pt2": """import torch

model = torch.export.load("model.pt2").module()
with torch.inference_mode():
    answer = model(torch.from_numpy(images))
logits, probabilities = answer["logits"].numpy(), answer["probabilities"].numpy()""",
    "savedmodel": """import tensorflow as tf

model = tf.saved_model.load("1")
answer = model.signatures["serving_default"](images=tf.constant(images))
logits, probabilities = answer["logits"].numpy(), answer["probabilities"].numpy()
# JPEG and PNG files as they are, which the model decodes and scales:
answer = model.signatures["serving_bytes"](image_bytes=tf.constant([open("image.jpg", "rb").read()]))""",
    "litert": """from ai_edge_litert.interpreter import Interpreter

run = Interpreter("model.tflite").get_signature_runner("serving_default")
answer = run(images=images)
logits, probabilities = answer["logits"], answer["probabilities"]""",
    "keras": """import keras

model = keras.saving.load_model("model.keras", compile=False)
answer = model(images)
logits, probabilities = answer["logits"].numpy(), answer["probabilities"].numpy()""",
}


def show_loading(artifact: Artifact) -> str:
    """The lines of Python that load the model."""
    lines = [f"import {module}" for module in list_keras_modules(artifact.file)] if artifact.format == "keras" else []
    if lines:
        lines = ["# Classes of the model are in this repository, which has to be in PYTHONPATH.", *lines, ""]
    return "\n".join([*lines, LOADING[artifact.format]])


def write_readme(artifact: Artifact, trained: Trained, weights: Weights) -> None:
    """README.md: the model card, with how the export is loaded, what it wants and what was checked."""
    run = find_run(trained)
    text = write_card(trained, run if run and run.finished else None, weights, use=describe_use(artifact))
    (artifact.folder / "README.md").write_text(text, encoding="utf-8")


def describe_use(artifact: Artifact) -> list[str]:
    """The paragraphs of the card that are about the export and not about the model."""
    content, checks, seen = artifact.content, artifact.content["checks"], artifact.preprocessing
    shape = f"(7, {seen.image_size}, {seen.image_size}, {seen.channels})"
    dtype = content["inputs"][IMAGES]["dtype"]
    kind = f"{artifact.format}, {QUANTISATIONS[artifact.quantisation] if artifact.quantisation else 'fp32'}"
    return ["## How to load it",
            f"This folder is an export: {kind}, made from the run `{content['run'] or 'a weight file'}` by "
            f"{artifact.maker}_project. `{DESCRIPTION}` lists its classes.",
            "\n".join(["```python", "import numpy as np",
                       f"images = np.zeros({shape}, np.{dtype})  # {content['inputs'][IMAGES]['meaning']}", "",
                       show_loading(artifact), "```"]),
            "### From a file to `images`",
            "\n".join(f"{number}. {step}" for number, step in enumerate(content["recipe"], 1)),
            "### Checked", f"With {checks['source']}: {describe_check(checks)}."]


def describe_check(checks: dict[str, Any]) -> str:
    """What artifact.json says of the check, in one line."""
    said = [f"{checks['bytes'] / 1e6:.1f} MB", f"logits within {checks['delta_logits']:.1e} of the trained model's, "
            f"whose range is {checks['logits_range']:.3g}",
            f"{checks['equal_answers']:,} of {checks['images']:,} answers equal"]
    if checks["accuracy"] is not None:
        said.append(f"accuracy {format_percent(checks['accuracy'])}, before "
                    f"{format_percent(checks['accuracy_trained'])}")
    if checks["delta_of_encoded"] is not None:
        said.append(f"logits of encoded images within {checks['delta_of_encoded']:.1e}")
    if checks["delta_to_recorded"] is not None:
        said.append(f"the trained model within {checks['delta_to_recorded']:.1e} of what the run recorded")
    return ", ".join(said)
