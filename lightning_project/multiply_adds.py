"""How many multiply-adds a trained model takes for an image: python -m lightning_project.multiply_adds RUN, for
`shared.study`.

What counts is convolutions and products of matrices, attention's among them, in a forward pass. Everything else, such
as normalisation and activations, is left out, as in published figures.
"""

import sys

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_project.models import build_model
from shared.machine.ending import report_errors
from shared.runs.trained import read_trained


def count_multiply_adds(model: nn.Module, channels: int, image_size: int) -> int:
    """The multiply-adds of one image (1, C, S, S); nothing is computed, since it is run on shapes alone."""
    state = {name: tensor.to("meta") for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    image = torch.empty(1, channels, image_size, image_size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        torch.func.functional_call(model.eval(), state, (image,))
    return counter.get_total_flops() // 2  # which counts a multiply-add as two


def main() -> None:
    trained = read_trained(sys.argv[1], ["hardware.accelerator=cpu", "hardware.precision=fp32"])
    print(count_multiply_adds(build_model(trained.config, trained), trained.channels, trained.image_size))


if __name__ == "__main__":
    report_errors(main)
