"""Export trained weights of either sibling from PyTorch: to ONNX, and to PyTorch's own format."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

# This program runs the code beside it, even where the environment was installed from another clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shared.artifacts.command import run_export_command
from shared.artifacts.formats import IMAGES, LOGITS, OPSET, PROBABILITIES
from shared.artifacts.making import Job, make_artifacts


def export(job: Job) -> list[Path]:
    """Write the formats that `job` asks for, check them, and return their folders.

    Raises:
        UserError: where a format cannot take the model, or an exported model does not answer as the trained one.
    """
    import torch

    from lightning_project.artifact import Served
    from lightning_project.models import build_model, load_weights, neutral_shapes
    from lightning_project.runtime import build_runtime
    from lightning_project.views import Views

    build_runtime(job.trained.config)
    model = build_model(job.trained.config, job.trained).eval()
    load_weights(model, job.trained.read_weights(neutral_shapes(model)))
    model = Views(model, job.trained.config.evaluate.tta).eval()

    def answer(images: np.ndarray) -> np.ndarray:
        """Logits (n, K) of normalised images (n, S, S, C)."""
        with torch.inference_mode():
            return model(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()

    served = Served(model, job.trained.preprocessing, job.input).eval()
    return make_artifacts(job, answer, {"onnx": partial(write_onnx, served), "pt2": partial(write_pt2, served)})


def write_pt2(served: Any, file: Path) -> None:
    """https://docs.pytorch.org/docs/stable/user_guide/torch_compiler/export.html"""
    import torch

    torch.export.save(served.program, file)


def write_onnx(served: Any, file: Path) -> None:
    """https://docs.pytorch.org/docs/stable/onnx_export.html"""
    import onnx
    import torch

    model = torch.onnx.export(served.program, dynamo=True, opset_version=OPSET["lightning"], input_names=[IMAGES],
                              output_names=[LOGITS, PROBABILITIES]).model_proto
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, model.graph):
        del part.metadata_props[:]  # PyTorch's names for what it was made of
    onnx.save(model, str(file))


if __name__ == "__main__":
    run_export_command(export, "lightning", "export.py", __doc__)
