"""Models by name, and how their weights get to and from the neutral names."""

from importlib import import_module

import torch
from torch import nn

from shared.batches.data import Data
from shared.config import Config
from shared.errors import UserError
from shared.models import MODELS, ModelEntry
from shared.weights.file import Shapes, Weights


def find_entry(name: str) -> ModelEntry:
    """What has to be known about the model `model.name`."""
    return MODELS[name]


def build_model(config: Config, data: Data) -> nn.Module:
    """An untrained model for the images and classes of `data`.

    Raises:
        UserError: where this sibling has no function that builds it.
    """
    builder = find_entry(config.model.name).builder
    place, name = f"{__name__}.{builder}", f"build_{builder}"
    try:
        build = getattr(import_module(place), name)
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name != place:
            raise
        raise UserError(f"model.name={config.model.name} has no function {name} in "
                        f"{place.replace('.', '/')}.py; write it, or train with the other sibling") from None
    return build(config.model, data.channels, len(data.classes), data.image_size)


def neutral_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of the neutral format; they share memory with the model."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}


def neutral_shapes(model: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in neutral_state(model).items()}


def neutral_weights(model: nn.Module) -> Weights:
    """Copies of the model's weights as NumPy arrays."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in neutral_state(model).items()}


def load_weights(model: nn.Module, weights: Weights) -> None:
    """Copy neutral weights into the model, whose names and shapes must be the same."""
    state = neutral_state(model)
    assert state.keys() == weights.keys()
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(torch.from_numpy(weights[name]))


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
