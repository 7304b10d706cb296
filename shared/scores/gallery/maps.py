"""Grad-CAM of a run's answers, which a sibling computes in a process of its own.

R. R. Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization
(arXiv:1610.02391). The map of an image and a class is the sum of a layer's feature maps, each weighed by the mean of
the logit's gradient over it, without what is below zero.
"""

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import UserError
from shared.machine.files import write_arrays
from shared.machine.interpreters import (
    explain_not_runnable,
    find_interpreter,
    list_siblings,
    list_variables,
    require_interpreter,
)
from shared.models import LIBRARIES, split_library_name
from shared.runs.records import SavedRun
from shared.runs.trained import Trained, read_trained
from shared.scores.gallery.answers import Answers

# The side of the smallest feature map that tells one place from another. Of an image of 8 pixels, the last stage of a
# ResNet leaves a single one, and an earlier stage is taken.
SMALLEST = 4
BATCH = 32  # images


def explain_answers(answers: Answers, rows: np.ndarray) -> np.ndarray:
    """The maps (k, h, w) float32 of the answers in `rows`, computed on the CPU in fp32.

    Raises:
        UserError: where no sibling here can compute them.
    """
    sibling = choose_sibling(answers.run)
    with tempfile.TemporaryDirectory() as place:
        given, out = Path(place, "given.npz"), Path(place, "maps.npz")
        images = np.stack([answers.preprocessing.normalise(answers.read_image(row)) for row in rows])
        write_arrays(given, images=images, classes=answers.given[rows])
        command = [require_interpreter(sibling), "-m", f"{sibling}_project.explain", str(answers.run.folder.resolve()),
                   str(given), str(out)]
        try:
            done = subprocess.run(command, cwd=place, env=list_variables(), capture_output=True, encoding="utf-8",
                                  errors="replace")
        except OSError as error:
            raise explain_not_runnable(sibling, error) from None
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["no message"]
            raise UserError(said[-1].removeprefix("error: "))
        with np.load(out) as arrays:
            return arrays["maps"]


def choose_sibling(run: SavedRun) -> str:
    """The sibling that trained `run`, or the other one where that is not here and the model is of both."""
    if library := split_library_name(run.config["model.name"]):
        return LIBRARIES[library[0]]
    here = [name for name in list_siblings() if find_interpreter(name)]
    return here[0] if here and run.framework not in here else run.framework


def answer_request(explain: Callable[[Trained, np.ndarray, np.ndarray], Any], words: list[str]) -> None:
    """Answer the request of `explain_answers` in the sibling's process: `words` are a run folder, the file of what is
    given, and the file for the maps; `explain` is the sibling's function of a trained model, images and classes."""
    source, given, out = words
    trained = read_trained(source, ["hardware.accelerator=cpu", "hardware.precision=fp32"])
    trained.config.model.gradient_checkpointing = False  # it hides layers within others, and changes no number
    with np.load(given) as arrays:
        images, classes = arrays["images"], arrays["classes"]
    write_arrays(Path(out), maps=explain(trained, images, classes))
