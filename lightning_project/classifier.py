"""The LightningModule: loss, metrics and optimizer of a classifier."""

from typing import Any

import lightning as L
import torch
from torch import distributed, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from lightning_project.optim import build_optimizer, build_schedule, find_decayed
from shared.config import Config

Batch = dict[str, torch.Tensor]


def gather_from_processes(value: torch.Tensor) -> torch.Tensor:
    """The values of all processes on the CPU, (processes, ...)."""
    if not distributed.is_initialized():
        return value[None].cpu()
    values = [torch.empty_like(value) for _ in range(distributed.get_world_size())]
    distributed.all_gather(values, value)
    return torch.stack(values).cpu()


def drop_padding(batch: Batch) -> Batch:
    """An evaluation batch without the rows that only fill it up."""
    rows = batch["weight"] > 0
    return {name: tensor[rows] for name, tensor in batch.items()}


class Classifier(L.LightningModule):
    """Wraps a model from images (n, C, S, S) to logits (n, K) for training on targets (n, K) that sum to 1."""

    def __init__(self, config: Config, model: nn.Module, classes: int, steps: int):
        super().__init__()
        self.config, self.model, self.steps = config, model, steps
        self.decaying = find_decayed(config, model)
        self.counts: Batch = {}
        # "micro" is top-1 over all images; torchmetrics' default is the mean of the classes' accuracies.
        self.metrics = nn.ModuleDict({f"{split}_metrics": nn.ModuleDict({
            "loss": MeanMetric(), "accuracy": MulticlassAccuracy(classes, average="micro")})
            for split in ("train", "val")})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the metrics of the epoch in progress have counted."""
        if self.trainer.global_step % self.steps:
            own = {f"{name}.{state}": getattr(metric, state) for name, metric in self.metrics["train_metrics"].items()
                   for state in metric._defaults}
            checkpoint["train_metrics"] = {name: gather_from_processes(value) for name, value in own.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.counts = checkpoint.get("train_metrics", {})

    def on_train_start(self) -> None:
        for name, counts in self.counts.items():
            metric_name, state = name.split(".")
            metric = self.metrics["train_metrics"][metric_name]
            rank, processes = self.trainer.global_rank, self.trainer.world_size
            # On another number of processes the first goes on with everybody's counts, the others from nothing.
            value = counts[rank] if len(counts) == processes else counts.sum(dim=0) * (rank == 0)
            setattr(metric, state, value.to(self.device))
            metric._update_count = 1
        self.counts = {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images)

    def step(self, batch: Batch, split: str, label_smoothing: float) -> torch.Tensor:
        logits, target = self(batch["image"]), batch["target"]
        loss = F.cross_entropy(logits, target, label_smoothing=label_smoothing)
        loss_metric, accuracy_metric = self.metrics[f"{split}_metrics"].values()
        if len(target):  # a process may have nothing left of a last batch
            loss_metric.update(loss.detach(), len(target))
            accuracy_metric.update(logits.detach(), target.argmax(dim=1))
        self.log_dict({f"{split}/loss": loss_metric, f"{split}/accuracy": accuracy_metric}, on_step=False,
                      on_epoch=True, batch_size=len(target))
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        return self.step(batch, "train", self.config.train.label_smoothing)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.step(drop_padding(batch), "val", 0.0)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Batch:
        batch = drop_padding(batch)
        return {"logits": self(batch["image"]).float(), "index": batch["index"],
                "label": batch["target"].argmax(dim=1)}

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = build_optimizer(self.config, self.model, self.decaying)
        schedule = build_schedule(self.config, optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
