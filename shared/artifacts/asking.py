"""The process in which an exported model is asked about images by its own runtime, and nothing else is loaded.

python -m shared.artifacts.asking FOLDER GIVEN FOUND: GIVEN is an .npz file with pixels (n, S, S, C) of values 0 to 255,
FOUND the .npz file to write. Encoded images in the folder `pictures` beside GIVEN are asked about too, where the format
takes them.
"""

import sys
from pathlib import Path

import numpy as np

from shared.artifacts.description import Artifact, read_unchecked
from shared.artifacts.formats import LOGITS, PROBABILITIES
from shared.artifacts.runtimes import Answer, Loaded, load_artifact, load_decoding
from shared.errors import UserError, summarise_error
from shared.machine.ending import report_errors

SIZES = 1, 7, 64  # of batches
FEW = 28  # images that are asked about in batches of each size, in which others than they may fill the last one


def ask_in_batches(folder: Path, given: Path, found: Path) -> None:
    """Write logits and probabilities (n, K) of all images; `again`, the logits (3, FEW, K) of the first ones in batches
    of each of SIZES; the dtypes that the model computes with; and the modules of the siblings that are loaded."""
    with np.load(given) as file:
        pixels = file["pixels"]
    artifact = read_unchecked(folder)
    model = load_artifact(artifact)
    logits, probabilities = ask_about_all(artifact, model, pixels, max(SIZES))
    again = [ask_about_all(artifact, model, np.resize(pixels, (-(-FEW // size) * size, *pixels.shape[1:])), size)[0]
             for size in SIZES]
    arrays = {"logits": logits, "probabilities": probabilities, "again": np.stack([part[:FEW] for part in again]),
              "dtypes": np.array(sorted(model.list_dtypes()), str),
              "modules": np.array(sorted(name for name in sys.modules if name.partition(".")[0].endswith("_project")))}
    if artifact.format == "savedmodel":
        files = sorted((given.parent / "pictures").iterdir())
        arrays["encoded"] = load_decoding(artifact)([path.read_bytes() for path in files])[0]
    np.savez(found, **arrays)


def ask_about_all(artifact: Artifact, model: Loaded, pixels: np.ndarray, size: int) -> Answer:
    """Logits and probabilities (n, K), asked for in batches of `size`. Raises `UserError` where the model does not
    answer, or not with what artifact.json says."""
    answers = []
    for first in range(0, len(pixels), size):
        batch = pixels[first:first + size]
        try:
            answer = model(batch)
        except Exception as error:  # the runtimes' own errors have no base in common
            raise UserError(f"{len(batch)} images: {summarise_error(error)}") from error
        for name, values in zip((LOGITS, PROBABILITIES), answer, strict=True):
            found, told = (values.shape, str(values.dtype)), artifact.content["outputs"][name]
            if found != ((len(batch), *told["shape"][1:]), told["dtype"]):
                raise UserError(f"{len(batch)} images: {name} are {found[1]} of shape {found[0]}, and artifact.json "
                                f"says {told['dtype']} of shape {tuple(told['shape'])}")
        answers.append(answer)
    return tuple(np.concatenate(part) for part in zip(*answers, strict=True))


if __name__ == "__main__":
    report_errors(lambda: ask_in_batches(*map(Path, sys.argv[1:4])))
