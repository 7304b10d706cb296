"""This sibling's half of `python -m shared.parity`, which records its data, models, optimizers and `train` at work.

`shared.parity.request.KINDS` says what each function records.
"""

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from lightning_project.classifier import Classifier
from lightning_project.data import DataModule
from lightning_project.models import build_model, find_entry, load_weights, neutral_weights
from lightning_project.optim import build_optimizer, build_schedule, find_decayed
from lightning_project.runtime import build_runtime
from lightning_project.train import train
from lightning_project.views import average_views
from shared.config import Config
from shared.data.batches import count_steps
from shared.data.cache import cache_images
from shared.data.loading import load_data
from shared.parity.request import (
    MARKS,
    VIEWS,
    Arrays,
    answer_request,
    hash_items,
    perturb_vectors,
    record_splits,
    thin_out,
)
from shared.training.imbalance import weigh_classes
from shared.weights.start import choose_starting_weights


def record_raw(config: Config) -> Arrays:
    data = load_data(config)
    loader = DataModule(config, data, build_runtime(config)).train_dataloader()
    batches = [{"index": batch["index"], "target": batch["target"], "bytes": hash_items(batch["image"].numpy())}
               for batch in loader]
    return record_splits(data) | {name: concatenate([batch[name] for batch in batches]) for name in batches[0]}


def record_pixels(config: Config) -> Arrays:
    module = DataModule(config, cache_images(config, load_data(config)), build_runtime(config))
    loader = module.train_dataloader()
    found = {}

    def keep(name: str, batches: DataLoader) -> None:
        augmented = [module.on_after_batch_transfer(batch, 0) for batch in batches]
        found[f"{name} images"] = concatenate([batch["image"].permute(0, 2, 3, 1) for batch in augmented])
        found[f"{name} targets"] = concatenate([batch["target"] for batch in augmented])

    for epoch in range(config.train.epochs):
        loader.sampler.current_step = lambda epoch=epoch: epoch * len(loader)  # as at the beginning of the epoch
        keep(f"train epoch {epoch + 1}", loader)
    keep("val", module.val_dataloader())
    keep("test", module.test_dataloader())
    return found


def record_start(config: Config) -> Arrays:
    build_runtime(config)
    data = load_data(config)
    model = build_model(config, data)
    drawn, _ = choose_starting_weights(config, find_entry(config.model.name), neutral_weights(model), data)
    load_weights(model, drawn)
    return {f"drawn {name}": tensor for name, tensor in drawn.items()} \
        | {f"held {name}": tensor for name, tensor in neutral_weights(model).items()}


def record_forward(config: Config) -> Arrays:
    runtime, data = build_runtime(config), load_data(config)
    model = build_model(config, data)
    weights, _ = choose_starting_weights(config, find_entry(config.model.name), neutral_weights(model), data)
    load_weights(model, perturb_vectors(weights))
    module = DataModule(config, data, runtime)
    batch = module.on_after_batch_transfer(next(iter(module.train_dataloader())), 0)
    class_weights = weigh_classes(data.train.labels, data.classes, config.train.class_weights)
    classifier = Classifier(config, model, len(data.classes), 1, class_weights)
    with L.Trainer(logger=False, enable_checkpointing=False, **runtime.trainer).precision_plugin.forward_context():
        evaluation = classifier.eval()(batch["image"])
        views = average_views(model, batch["image"], VIEWS)
        training = classifier.train()(batch["image"])
        loss = classifier.training_step(batch, 0)
    loss.backward()
    return {"evaluation logits": concatenate([evaluation]), "views logits": concatenate([views]),
            "training logits": concatenate([training]), "loss": loss.detach().numpy()} \
        | {f"gradient {name}": thin_out(parameter.grad.numpy()) for name, parameter in model.named_parameters()
           if parameter.requires_grad}


def record_rates(config: Config) -> Arrays:
    build_runtime(config)
    data = load_data(config)
    steps = count_steps(config, len(data.train))
    model = build_model(config, data)
    optimizer = build_optimizer(config, model, find_decayed(config, model))
    schedule = build_schedule(config, optimizer, steps)
    rates = []
    for _ in range(config.train.epochs * steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    # Those of the first group, which are the head's. The backbone's are these times a factor.
    return {"rates": torch.tensor(rates, dtype=torch.float64)[:, 0].numpy()}


class Snapshots(Callback):
    """Keeps the weights after the steps in MARKS, and the test logits at the end."""

    def __init__(self):
        self.arrays: Arrays = {}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_) -> None:
        if trainer.global_step in MARKS:
            self.arrays |= {f"step {trainer.global_step} {name}": tensor
                            for name, tensor in neutral_weights(pl_module.model).items()}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module = trainer.datamodule
        pl_module.eval()
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            self.arrays["test logits"] = concatenate([pl_module(module.on_after_batch_transfer(batch, 0)["image"])
                                                      for batch in module.test_dataloader()])


def record_fit(config: Config) -> Arrays:
    snapshots = Snapshots()
    train(config, [snapshots])
    return snapshots.arrays


def concatenate(batches: list) -> np.ndarray:
    """Concatenate tensors or arrays, (n, ...) each, to one array (N, ...); bfloat16 becomes float32."""
    tensor = torch.cat([torch.as_tensor(batch).detach() for batch in batches])
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


if __name__ == "__main__":
    answer_request({"raw": record_raw, "pixels": record_pixels, "start": record_start, "forward": record_forward,
                    "rates": record_rates, "fit": record_fit})
