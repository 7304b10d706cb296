"""What stands beside an exported model: artifact.json for programs, README.md for people."""

from pathlib import Path
from typing import Any

from shared.artifacts.description import DESCRIPTION, INPUTS, KIND, Artifact
from shared.artifacts.formats import FORMATS, IMAGES, LOGITS, OPSET, PROBABILITIES, QUANTISATIONS
from shared.batches.preprocessing import Preprocessing
from shared.card.page import find_run, write_card
from shared.machine.files import write_json
from shared.machine.versions import list_versions
from shared.runs.trained import Trained
from shared.weights.file import Weights, fingerprint_weights

CONVERTERS = ("ai-edge-litert", "onnx", "onnxruntime", "onnxscript", "tf2onnx")
ENCODED = "image_bytes"  # TensorFlow Serving decodes the base64 of inputs whose names end so


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
        "versions": list_versions(CONVERTERS)}
    if form == "onnx":
        content["opset"] = OPSET[maker]
    if form == "savedmodel":
        content["signatures"] = {"serving_default": IMAGES, "serving_bytes": ENCODED}
    return content


def write_recipe(seen: Preprocessing, input: str) -> list[str]:
    """The preprocessing in plain words, for whoever writes it in another language; the artifact does the rest."""
    size, grey = seen.image_size, seen.channels == 1
    side = "the shorter side" if seen.center_crop == 1 else f"{seen.center_crop:g} times the shorter side"
    reach = {"bilinear": "a triangle of half-width 1", "bicubic": "Keys' cubic with a = -0.5, of half-width 2"}
    steps = ["Decode the file to 8-bit RGB in sRGB, rows from top to bottom. Turn it as its EXIF orientation says, lay "
             "transparent parts over white, and keep the upper 8 of 16 bits."]
    if grey:
        steps.append("Make one grey channel: (19595 R + 38470 G + 7471 B + 32768) >> 16, in integers.")
    if seen.center_crop == 1:
        steps.append(f"If the image has {size} x {size} pixels, leave out the next two steps.")
    steps += [
        f"Take the central square whose side is {side}; its edges may lie between pixels.",
        f"Scale it to {size} x {size} as Pillow's Image.resize(box=...) does: for each output pixel, along columns "
        f"first and then along rows, average the input pixels around its centre, weighted by "
        f"{reach[seen.interpolation]} that is stretched by the factor of reduction where that is above 1, the weights "
        "divided by their sum."
        + (" Round to 8 bits after each direction." if seen.rounded else " Do not round in between.")]
    if input == "uint8":
        steps.append(f"Give the result as uint8, (n, {size}, {size}, {seen.channels}), rows first, channels last: the "
                     "model divides by 255 and normalises by itself."
                     + ("" if seen.rounded else " Round to the nearest whole number."))
    else:
        steps.append(f"For each channel: divide by 255, subtract {list(seen.mean)}, divide by {list(seen.std)}. Give "
                     f"the result as float32, (n, {size}, {size}, {seen.channels}), rows first, channels last.")
    steps.append(f"Output {LOGITS}, (n, K) float32, are the scores; {PROBABILITIES} are their softmax. The largest is "
                 "the answer, and its place is that of the class in `classes`.")
    return steps


def write_description(folder: Path, content: dict[str, Any]) -> None:
    write_json(folder / DESCRIPTION, content)


LOADING = {
    "onnx": """import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
logits, probabilities = session.run(["logits", "probabilities"], {"images": images})""",
    "pt2": """import torch

model = torch.export.load("model.pt2").module()
with torch.inference_mode():
    logits, probabilities = model(torch.from_numpy(images))""",
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
import keras_project.models.layers, keras_project.models.vit  # classes of this repository, which has to be there

model = keras.saving.load_model("model.keras", compile=False)
answer = model(images)
logits, probabilities = answer["logits"], answer["probabilities"]""",
}


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
                       LOADING[artifact.format], "```"]),
            "### From a file to `images`",
            "\n".join(f"{number}. {step}" for number, step in enumerate(content["recipe"], 1)),
            "### Checked", f"With {checks['source']}: {describe_facts(checks)}."]


def describe_facts(checks: dict[str, Any]) -> str:
    said = [f"logits at most {checks['delta_logits']:.1e} from the trained model's, whose range is "
            f"{checks['logits_range']:.3g}", f"{checks['equal_answers']:,} of {checks['images']:,} answers equal"]
    if checks["accuracy"] is not None:
        said.append(f"accuracy {checks['accuracy']:.2%}, of the trained model {checks['accuracy_trained']:.2%}")
    if checks["delta_of_encoded"] is not None:
        said.append(f"logits of encoded images at most {checks['delta_of_encoded']:.1e} from those of the recipe")
    return "; ".join(said)
