"""Models by name, and the way of their weights to and from the neutral names."""

import torch
from torch import nn

from lightning_project.models import efficientnet, resnet, vit
from shared.config import Config
from shared.datasets import Data
from shared.models import family_of
from shared.weights import Shapes, Weights

# By the first part of `model.name`.
MODELS = {"resnet": resnet.build_resnet, "efficientnet": efficientnet.build_efficientnet, "vit": vit.build_vit}


def build_model(config: Config, data: Data) -> nn.Module:
    """An untrained model for the images and classes of `data`."""
    build = MODELS[family_of(config.model.name)]
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
