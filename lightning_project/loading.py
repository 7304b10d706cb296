"""How PyTorch's own format is read, without the code that the model was built with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from shared.artifacts.formats import LOGITS, PROBABILITIES


def load_pt2(file: Path, threads: int) -> tuple[Callable, Callable]:
    """See `shared.artifacts.runtimes`."""
    if threads:
        torch.set_num_threads(threads)
    program = torch.export.load(file)
    model = program.module()

    def answer(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            found = model(torch.from_numpy(np.ascontiguousarray(images)))
        return found[LOGITS].numpy(), found[PROBABILITIES].numpy()

    def list_dtypes() -> set[str]:
        values = [node.meta.get("val") for node in program.graph.nodes]
        values += list(program.state_dict.values())
        return {str(value.dtype).removeprefix("torch.") for value in values if isinstance(value, torch.Tensor)}
    return answer, list_dtypes
