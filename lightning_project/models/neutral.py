"""How the tensors of a PyTorch model are called in the neutral format: as in its `state_dict`.

BatchNorm's `num_batches_tracked` is left out, since it matters with `momentum=None` alone.
"""

import numpy as np
import torch
from torch import nn

from shared.errors import UserError
from shared.weights.file import Shapes, Weights


def neutral_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of the model by their names in the neutral format; they share memory with the model.

    Raises:
        UserError: where something in the model's state is no tensor, or has no shape yet.
    """
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name, tensor in state.items():
        if nn.parameter.is_lazy(tensor):
            raise UserError(f"{name} of the model has no shape yet; give its layer the number of inputs, as nn.Linear "
                            "takes it, in place of a Lazy class")
        if not isinstance(tensor, torch.Tensor):
            raise UserError(f"{name} of the model is a {type(tensor).__name__}, and a weight file holds nothing but "
                            "tensors; keep it in a buffer, or out of the model's state_dict")
    return state


def neutral_shapes(model: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in neutral_state(model).items()}


def neutral_weights(model: nn.Module) -> Weights:
    """Copies of the model's weights as NumPy arrays, bfloat16 as float32."""
    return {name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy().copy()
            for name, tensor in neutral_state(model).items()}


def untrained_names(model: nn.Module) -> set[str]:
    """The names of buffers, and of parameters that need no gradient."""
    parameters = model.named_parameters(remove_duplicate=False)
    return set(neutral_state(model)) - {name for name, parameter in parameters if parameter.requires_grad}


def load_weights(model: nn.Module, weights: Weights) -> None:
    """Copy neutral weights into the model, whose names and shapes must be the same."""
    state = neutral_state(model)
    assert state.keys() == weights.keys()
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(torch.from_numpy(np.asarray(weights[name])))
