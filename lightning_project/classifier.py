"""The LightningModule: loss, metrics and optimizer of a classifier."""

from typing import Any

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from lightning_project.optim import build_optimizer, build_schedule
from shared.config import Config

Batch = dict[str, torch.Tensor]


class Classifier(L.LightningModule):
    """Wraps a model from images (n, C, S, S) to logits (n, K) for training on targets (n, K) that sum to 1."""

    def __init__(self, config: Config, model: nn.Module, classes: int, steps: int):
        super().__init__()
        self.config, self.model, self.steps = config, model, steps
        # "micro" is top-1 over all images; torchmetrics' default is the mean of the classes' accuracies.
        self.metrics = nn.ModuleDict({f"{split}_metrics": nn.ModuleDict({
            "loss": MeanMetric(), "accuracy": MulticlassAccuracy(classes, average="micro")})
            for split in ("train", "val")})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images)

    def step(self, batch: Batch, split: str, label_smoothing: float) -> torch.Tensor:
        logits, target = self(batch["image"]), batch["target"]
        loss = F.cross_entropy(logits, target, label_smoothing=label_smoothing)
        loss_metric, accuracy_metric = self.metrics[f"{split}_metrics"].values()
        loss_metric.update(loss.detach(), len(target))
        accuracy_metric.update(logits.detach(), target.argmax(dim=1))
        self.log_dict({f"{split}/loss": loss_metric, f"{split}/accuracy": accuracy_metric}, on_step=False,
                      on_epoch=True, batch_size=len(target))
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        return self.step(batch, "train", self.config.train.label_smoothing)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.step(batch, "val", 0.0)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Batch:
        return {"logits": self(batch["image"]).float(), "index": batch["index"],
                "label": batch["target"].argmax(dim=1)}

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = build_optimizer(self.config, self.model)
        schedule = build_schedule(self.config, optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
