"""The process in which an exported model is asked about images by its own runtime, and nothing else is loaded.

python -m shared.artifacts.asking FOLDER GIVEN FOUND: GIVEN is an .npz file with pixels (n, S, S, C) of values 0 to 255,
FOUND the .npz file to write. Encoded images in the folder `pictures` beside GIVEN are asked about too, where the format
takes them.
"""

import sys
from pathlib import Path

import numpy as np

from shared.artifacts.description import read_unchecked
from shared.artifacts.runtimes import Answer, Loaded, load_artifact, load_decoding
from shared.errors import UserError, summarise_error
from shared.machine.ending import report_errors

SMALL_BATCHES = (1, 7)
BATCH = 64


def ask_in_batches(folder: Path, given: Path, found: Path) -> None:
    """Write logits and probabilities (n, K) of all images, the logits of the first image in batches of 1, 7 and 64,
    (3, K), and the dtypes that the model computes with."""
    with np.load(given) as file:
        pixels = file["pixels"]
    artifact = read_unchecked(folder)
    model = load_artifact(artifact)
    first = [ask(model, np.resize(pixels, (size, *pixels.shape[1:])))[0][0] for size in (*SMALL_BATCHES, BATCH)]
    answers = [ask(model, pixels[start:start + BATCH]) for start in range(0, len(pixels), BATCH)]
    logits, probabilities = (np.concatenate(part) for part in zip(*answers, strict=True))
    arrays = {"logits": logits, "probabilities": probabilities, "first": np.stack(first),
              "dtypes": np.array(sorted(model.list_dtypes()))}
    if artifact.format == "savedmodel":
        files = sorted((given.parent / "pictures").iterdir())
        arrays["encoded"] = load_decoding(artifact)([path.read_bytes() for path in files])[0]
    np.savez(found, **arrays)


def ask(model: Loaded, pixels: np.ndarray) -> Answer:
    try:
        return model(pixels)
    except Exception as error:  # the runtimes' own errors have no base in common
        raise UserError(f"{len(pixels)} images: {summarise_error(error)}") from error


if __name__ == "__main__":
    report_errors(lambda: ask_in_batches(*map(Path, sys.argv[1:4])))
