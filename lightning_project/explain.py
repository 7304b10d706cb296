"""Where in an image a model sees the class that it names: Grad-CAM (arXiv:1610.02391), for `shared.gallery`.

python -m lightning_project.explain RUN GIVEN OUT; `shared.scores.gallery.maps` says what the files hold.
"""

import sys
from contextlib import ExitStack

import numpy as np
import torch
from torch import nn

from lightning_project.models import build_model, find_entry, load_weights, neutral_shapes
from lightning_project.runtime import build_runtime
from shared.errors import UserError
from shared.machine.ending import report_errors
from shared.models import ModelEntry
from shared.runs.trained import Trained
from shared.scores.gallery.maps import BATCH, SMALLEST, answer_request

# The modules of our own models after which Grad-CAM may be taken, from the first to the last. Of other models it is any
# module.
STAGES = {"resnet": ("layer1", "layer2", "layer3", "layer4"),
          "efficientnet": (*(f"blocks.{number}" for number in range(7)), "act2"),
          "airbench": ("act", "groups.0", "groups.1", "groups.2")}


def explain(model: nn.Module, entry: ModelEntry, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The Grad-CAM of each image for its class, (n, h, w) float32, 0 or above, in the units of the logit.

    It is taken after the last stage of a ResNet and after the head convolution's activation of an EfficientNet, or
    after the last stage before that whose side is at least SMALLEST. In a ViT it is taken of the patches' tokens after
    the first norm of the last block, since beyond this block's attention only the class token counts.

    Args:
        model: of images (n, C, S, S) to logits (n, K). It is left in evaluation mode, with its parameters frozen.
        entry: what is known about the model.
        images: (n, S, S, C), normalised as in evaluation.
        classes: (n,) int64.

    Raises:
        UserError: where the model has no such feature map.
    """
    model.eval().requires_grad_(False)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(next(model.parameters()).dtype)
    name = find_feature_map(model, entry, x[:1])
    maps = []
    for part, labels in zip(x.split(BATCH), torch.from_numpy(classes).split(BATCH), strict=True):
        features, weights = weigh_channels(model, name, part, labels)
        maps.append(torch.einsum("nchw,nc->nhw", features, weights).relu().float().numpy())
    return np.concatenate(maps)


def weigh_channels(model: nn.Module, name: str, images: torch.Tensor,
                   labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The feature maps (n, c, h, w) that leave the module called `name`, and the mean over each of them of the gradient
    of its image's logit for the label, (n, c)."""
    kept = []

    def begin_graph(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()  # since an activation that follows may overwrite it

    with model.get_submodule(name).register_forward_hook(begin_graph):
        logits = model(images)
    chosen = logits.gather(1, labels[:, None]).sum()  # in evaluation mode, no logit depends on another image
    features, gradient = kept[0].detach(), torch.autograd.grad(chosen, kept[0])[0]
    if features.ndim == 3:  # tokens (n, 1 + T, D), of which the first is the class token
        features, gradient = (arrange_tokens(tokens[:, 1:]) for tokens in (features, gradient))
    return features, gradient.mean(dim=(2, 3))


def arrange_tokens(tokens: torch.Tensor) -> torch.Tensor:
    """One token per patch, row by row, as feature maps: (n, T, D) to (n, D, h, w)."""
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def find_feature_map(model: nn.Module, entry: ModelEntry, image: torch.Tensor) -> str:
    """The name of the module after which Grad-CAM is taken. Raises `UserError` where there is none."""
    if entry.builder == "vit":
        return f"blocks.{len(model.blocks) - 1}.norm1"
    shapes = record_shapes(model, image)
    names = [name for name in STAGES.get(entry.builder, shapes) if is_large(shapes[name])]
    if not names:
        raise UserError(f"no feature map of it has {SMALLEST} pixels on a side or more, for images of "
                        f"{image.shape[-1]} pixels")
    if entry.builder not in STAGES:
        refuse_late_layers([model.get_submodule(name) for name in shapes])
    return names[-1]


def refuse_late_layers(modules: list[nn.Module]) -> None:
    """Raise `UserError` where most of the `modules` that have parameters of their own come after the last convolution,
    as in a transformer, where tensors (n, c, h, h) may be attention."""
    trained = [module for module in modules if [*module.parameters(recurse=False)]]
    until = max((place for place, module in enumerate(trained, start=1) if isinstance(module, nn.Conv2d)), default=0)
    if 2 * until < len(trained):
        raise UserError(f"{len(trained) - until} of its {len(trained)} layers come after the last convolution; "
                        "Grad-CAM is for models that stay convolutional")


def record_shapes(model: nn.Module, image: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """The shapes of what leaves each module within `model`, by its name, in the order in which they are computed."""
    shapes = {}
    with ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            def keep(module: nn.Module, inputs: tuple, output: object, name: str = name) -> None:
                shapes[name] = tuple(getattr(output, "shape", ()))
            if name:
                hooks.enter_context(module.register_forward_hook(keep))
        model(image)
    return shapes


def is_large(shape: tuple[int, ...]) -> bool:
    """Whether it is the shape of feature maps (n, c, h, w) of a square image, and of SMALLEST pixels or more."""
    return len(shape) == 4 and shape[2] == shape[3] >= SMALLEST


def explain_trained(trained: Trained, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """`explain` for the weights of a run."""
    build_runtime(trained.config)
    model = build_model(trained.config, trained)
    load_weights(model, trained.read_weights(neutral_shapes(model)))
    return explain(model, find_entry(trained.config.model.name), images, classes)


if __name__ == "__main__":
    report_errors(lambda: answer_request(explain_trained, sys.argv[1:]))
