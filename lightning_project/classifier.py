"""The LightningModule: loss, metrics and optimizer of a classifier."""

from typing import Any

import lightning as L
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lightning_project.losses import BinaryCrossEntropy, FocalLoss
from lightning_project.metric_state import load_metric_state, save_metric_state
from lightning_project.optim import build_optimizer, build_schedule, find_decayed, refuse_lost_settings
from lightning_project.views import average_views
from shared.config import Config
from shared.scores import make_scores_exact
from shared.training.seams import explain_bad_loss, explain_bad_metric, validate_metric_names

FILE = "lightning_project/classifier.py"
Batch = dict[str, torch.Tensor]


def build_loss(config: Config, class_weights: np.ndarray | None = None, training: bool = True) -> nn.Module:
    """The loss of logits (n, K) and targets (n, K) that sum to 1, as a scalar: the mean over images.

    In evaluation, `training` false, targets are not smoothed and classes not weighed. `class_weights` is (K,) or None.
    """
    settings = config.train
    weight = None if class_weights is None or not training else torch.tensor(class_weights,
                                                                             dtype=torch.get_default_dtype())
    smoothing = settings.label_smoothing if training else 0.0
    if settings.loss == "binary_cross_entropy":
        return BinaryCrossEntropy(weight, smoothing)
    if settings.loss == "focal":
        return FocalLoss(settings.focal_gamma, weight, smoothing)
    return nn.CrossEntropyLoss(weight, label_smoothing=smoothing)


def build_metrics(config: Config, classes: int) -> dict[str, Metric]:
    """The metrics beside the loss, by the names under which they are logged: train/<name> and val/<name>, test/<name>.

    Each is updated with logits (n, K) and labels (n,) int64, and computes one number.
    """
    # "micro" is top-1 over all images; torchmetrics' default is the mean of the classes' accuracies.
    metrics = {"accuracy": MulticlassAccuracy(classes, average="micro")}
    if "top5" in config.train.metrics:
        metrics["top5"] = MulticlassAccuracy(classes, top_k=min(5, classes), average="micro")
    if "macro_f1" in config.train.metrics:
        metrics["macro_f1"] = MulticlassF1Score(classes, average="macro")
    return metrics


def validate_seams(loss: nn.Module, metrics: dict[str, Metric], classes: int) -> None:
    """Try loss and metrics on two images. Raises `UserError` where one of them cannot be trained with."""
    validate_metric_names(metrics, FILE)
    logits, labels = torch.zeros(2, classes, requires_grad=True), torch.tensor([0, classes - 1])
    try:
        value = loss(logits, F.one_hot(labels, classes).to(logits.dtype))
        if value.shape != () or not value.requires_grad:
            raise ValueError(f"it returns a tensor of shape {tuple(value.shape)}"
                             f"{'' if value.requires_grad else ' without a gradient'}, and not a scalar")
    except Exception as error:
        raise explain_bad_loss(str(error), classes, FILE) from error
    for name, metric in metrics.items():
        try:
            metric.update(logits.detach(), labels)
            float(metric.compute())
        except Exception as error:
            raise explain_bad_metric(name, str(error), FILE) from error
        metric.reset()


def score_predictions(config: Config, classes: int, predictions: dict[str, np.ndarray]) -> dict[str, float]:
    """Loss and metrics of saved predictions, logits (n, K) and label (n,), in float64."""
    logits, labels = torch.from_numpy(predictions["logits"]).double(), torch.from_numpy(predictions["label"])
    found = {"loss": float(build_loss(config, training=False)(logits, F.one_hot(labels, classes).double()))}
    for name, metric in build_metrics(config, classes).items():
        metric.update(logits, labels)
        found[name] = float(metric.compute())
    return make_scores_exact(found, predictions)


def drop_padding(batch: Batch) -> Batch:
    """An evaluation batch without the rows that only fill it up."""
    rows = batch["weight"] > 0
    return {name: tensor[rows] for name, tensor in batch.items()}


class Classifier(L.LightningModule):
    """Wraps a model from images (n, C, S, S) to logits (n, K) for training on targets (n, K) that sum to 1."""

    def __init__(self, config: Config, model: nn.Module, classes: int, steps: int,
                 class_weights: np.ndarray | None = None):
        super().__init__()
        self.config, self.model, self.steps = config, model, steps
        self.decayed = find_decayed(config, model)
        self.losses = nn.ModuleDict({"train_loss": build_loss(config, class_weights),
                                     "val_loss": build_loss(config, training=False)})
        validate_seams(self.losses["train_loss"], build_metrics(config, classes), classes)
        self.metrics = nn.ModuleDict({f"{split}_metrics": nn.ModuleDict({"loss": MeanMetric(),
                                                                         **build_metrics(config, classes)})
                                      for split in ("train", "val")})
        self.metric_state: dict[str, Any] = {}

    @property
    def logged(self) -> list[str]:
        """The names under which `step` logs."""
        return [f"{split}/{name}" for split in ("train", "val") for name in self.metrics[f"{split}_metrics"]]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the metrics of the epoch in progress have counted."""
        if self.trainer.global_step % self.steps:
            checkpoint["train_metrics"] = save_metric_state(self.metrics["train_metrics"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.metric_state = checkpoint.get("train_metrics", {})

    def on_train_start(self) -> None:
        load_metric_state(self.metrics["train_metrics"], self.metric_state, self.trainer.global_rank,
                          self.trainer.world_size)
        self.metric_state = {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images)

    def step(self, batch: Batch, split: str) -> torch.Tensor:
        logits, target = self(batch["image"]), batch["target"]
        loss = self.losses[f"{split}_loss"](logits, target)
        metrics = self.metrics[f"{split}_metrics"]
        if len(target):  # a process may have nothing left of a last batch
            for name, metric in metrics.items():
                metric.update(*((loss.detach(), len(target)) if name == "loss" else
                                (logits.detach(), target.argmax(dim=1))))
        self.log_dict({f"{split}/{name}": metric for name, metric in metrics.items()}, on_step=False, on_epoch=True,
                      batch_size=len(target))
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        return self.step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.step(drop_padding(batch), "val")

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Batch:
        batch = drop_padding(batch)
        logits = average_views(self.model, batch["image"], self.config.evaluate.tta)
        return {"logits": logits.float(), "index": batch["index"],
                "label": batch["target"].argmax(dim=1)}

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = build_optimizer(self.config, self.model, self.decayed)
        refuse_lost_settings(self.config, optimizer)
        schedule = build_schedule(self.config, optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
