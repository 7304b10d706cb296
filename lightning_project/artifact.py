"""A trained model as it leaves the project, with its preprocessing inside."""

from functools import cached_property

import torch
from torch import nn

from shared.artifacts.formats import IMAGES, LOGITS, PROBABILITIES
from shared.data.preprocessing import Preprocessing


class Served(nn.Module):
    """Images (n, S, S, C) to logits and probabilities, (n, K) each.

    Images are uint8, or float32 that is already normalised: `input` is one of `shared.artifacts.description.INPUTS`.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, input: str):
        super().__init__()
        self.model, self.normalises, self.image_size = model, input == "uint8", preprocessing.image_size
        self.register_buffer("mean", 255 * torch.tensor(preprocessing.mean))  # (C,)
        self.register_buffer("scale", 1 / (255 * torch.tensor(preprocessing.std)))

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The graph, for any batch size. Two images trace it, since PyTorch takes a size of 1 for a constant."""
        shape = 2, self.image_size, self.image_size, len(self.mean)
        images = torch.zeros(shape, dtype=torch.uint8 if self.normalises else torch.float32)
        program = torch.export.export(self, (images,), dynamic_shapes={IMAGES: {0: torch.export.Dim("batch")}})
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # it names this machine's folders
        return program

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        x = (images.float() - self.mean) * self.scale if self.normalises else images
        logits = self.model(x.permute(0, 3, 1, 2))
        return {LOGITS: logits, PROBABILITIES: logits.softmax(dim=1)}
