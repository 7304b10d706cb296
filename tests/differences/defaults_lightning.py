"""What PyTorch and Lightning compute as they come, for the tests beside it; defaults_keras.py has the same functions.

Arrays in, arrays out: images are (n, H, W, C), kernels (H, W, in, out), weights (in, out).
"""

import logging
import warnings
from typing import Any

import lightning as L
import numpy as np
import torch
import torchmetrics.classification
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as transforms

from lightning_project import update_rules

torch.set_num_threads(1)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")

Arrays = dict[str, np.ndarray]


def channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(images.transpose(0, 3, 1, 2))


def channels_last(images: torch.Tensor) -> np.ndarray:
    return images.detach().numpy().transpose(0, 2, 3, 1)


def strided_convolution(images: np.ndarray, kernel: np.ndarray) -> Arrays:
    weight = torch.tensor(kernel.transpose(3, 2, 0, 1))
    return {"stock": channels_last(F.conv2d(channels_first(images), weight, stride=2, padding=1))}


def batch_norm(images: np.ndarray, gamma: np.ndarray, beta: np.ndarray, upstream: np.ndarray) -> dict[str, Arrays]:
    """One training step, then evaluation; `upstream` is the gradient of the outputs."""
    layer = nn.BatchNorm2d(len(gamma), dtype=torch.tensor(images).dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(gamma))
        layer.bias.copy_(torch.tensor(beta))
    inputs = channels_first(images).requires_grad_()
    found = {}
    for mode in ("training", "evaluation"):
        layer.train(mode == "training")
        outputs = layer(inputs)
        gradients = torch.autograd.grad(outputs, [inputs, layer.weight, layer.bias], channels_first(upstream))
        found |= {f"{mode} outputs": channels_last(outputs), f"{mode} gradient of inputs": channels_last(gradients[0]),
                  f"{mode} gradient of gamma": gradients[1].numpy(), f"{mode} gradient of beta": gradients[2].numpy()}
    return {"stock": {**found, "mean": layer.running_mean.numpy(), "variance": layer.running_var.numpy()}}


def batch_norm_evaluation(images: np.ndarray, variance: float) -> Arrays:
    """With a running mean of 0 and `variance` for all channels."""
    layer = nn.BatchNorm2d(images.shape[-1], dtype=torch.tensor(images).dtype).eval()
    layer.running_var.fill_(variance)
    return {"stock": channels_last(layer(channels_first(images)))}


def initial_deviations() -> dict[str, float]:
    """Standard deviations of the initial weights of a layer of 512 inputs and one of 3x3x64, and of their biases."""
    torch.manual_seed(0)
    linear, convolution = nn.Linear(512, 512), nn.Conv2d(64, 64, 3)
    biases = torch.cat([nn.Linear(512, 512).bias for _ in range(20)])
    return {"dense": linear.weight.std().item(), "convolution": convolution.weight.std().item(),
            "bias": biases.std().item()}


def optimize(rule: str, options: dict[str, Any], weights: np.ndarray, gradients: np.ndarray,
             rates: np.ndarray | None = None, max_norm: float = 0.0) -> np.ndarray:
    """The weights after a step for each of `gradients`; without `rates` at the rule's own learning rate.

    `rule` is PyTorch's class, or ours where it starts with "our ".
    """
    weight = nn.Parameter(torch.tensor(weights))
    kind = getattr(update_rules, rule[4:]) if rule.startswith("our ") else getattr(torch.optim, rule)
    optimizer = kind([{"params": [weight], "names": ["weight"]}], **options)
    for step, gradient in enumerate(gradients):
        if rates is not None:
            optimizer.param_groups[0]["lr"] = float(rates[step])
        weight.grad = torch.tensor(gradient)
        if max_norm:
            nn.utils.clip_grad_norm_([weight], max_norm)
        optimizer.step()
    return weight.detach().numpy()


def resize(images: np.ndarray, size: int) -> Arrays:
    return {"stock": channels_last(transforms.resize(channels_first(images), [size, size])),
            "plain": channels_last(transforms.resize(channels_first(images), [size, size], antialias=False))}


def accuracy(logits: np.ndarray, labels: np.ndarray, batch: int) -> dict[str, float]:
    """Over batches of `batch` rows, the last one smaller."""
    classes = logits.shape[1]
    metrics = {"stock": torchmetrics.classification.MulticlassAccuracy(classes),
               "ours": torchmetrics.classification.MulticlassAccuracy(classes, average="micro")}
    for start in range(0, len(labels), batch):
        for metric in metrics.values():
            metric.update(torch.tensor(logits[start:start + batch]), torch.tensor(labels[start:start + batch]))
    return {name: metric.compute().item() for name, metric in metrics.items()}


def cross_entropy(logits: np.ndarray, targets: np.ndarray, label_smoothing: float) -> dict[str, float]:
    loss = F.cross_entropy(torch.tensor(logits), torch.tensor(targets), label_smoothing=label_smoothing)
    return {"stock": loss.item()}


def python_float(value: float) -> float:
    """A Python float as a float64 tensor."""
    return torch.tensor(value, dtype=torch.float64).item()


def half_precision(weight: float) -> float:
    """What 1 becomes in a layer of that single weight under 16-bit mixed precision on the CPU."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, weight)
    trainer = L.Trainer(accelerator="cpu", precision="16-mixed", logger=False, enable_checkpointing=False,
                        enable_progress_bar=False)
    with torch.no_grad(), trainer.precision_plugin.train_step_context():
        return layer(torch.ones(1, 1)).item()


class Scripted(L.LightningModule):
    """Validation losses as written."""

    def __init__(self, losses: list[float]):
        super().__init__()
        self.losses, self.weight = losses, nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.log("val/loss", self.losses[self.current_epoch], on_step=False, on_epoch=True, batch_size=1)
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def epochs_until_stop(losses: list[float], options: dict[str, Any]) -> dict[str, int]:
    """After how many epochs early stopping ends a training with these validation losses."""
    stopping = EarlyStopping("val/loss", check_on_train_epoch_end=True, **options)
    trainer = L.Trainer(accelerator="cpu", max_epochs=len(losses), callbacks=[stopping], logger=False,
                        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(Scripted(losses), DataLoader(torch.zeros(1, 1)))
    return {"stock": trainer.current_epoch}
