"""This sibling's half of `shared.bench`: python -m lightning_project.bench CONFIG OUT WHAT COUNT

WHAT is rounds, of that COUNT; bare or bare_per_core, COUNT steps; input or stock_input, COUNT seconds; training or
stock_training, COUNT epochs, which the config says too.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.bench.measure import time_epochs
from shared.config import Config, load_config
from shared.machine import hardware


def measure_bare_speed(config: Config, steps: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Images per second of training `steps` times on one batch in memory, without Lightning, data or callbacks; the
    seconds are those of `clock`."""
    return time_steps(*build_train_step(config), steps, clock)


def build_train_step(config: Config, layout: Any = None) -> tuple[Callable[[], None], int]:
    """A bare training step on one batch in memory, and the number of its images.

    `layout` is the memory format of images and weights, in place of those that they have in a training.
    """
    import torch

    from lightning_project.classifier import build_loss
    from lightning_project.data import DataModule
    from lightning_project.models import build_model
    from lightning_project.optim import build_optimizer, find_decayed
    from lightning_project.runtime import build_runtime
    from shared.data.loading import load_data

    runtime = build_runtime(config)
    data = load_data(config)
    loaders = DataModule(config, data, runtime)
    batch = loaders.on_after_batch_transfer(next(iter(loaders.train_dataloader())), 0)
    device = "cuda" if runtime.accelerator == "gpu" else "cpu"
    images, target = batch["image"].to(device), batch["target"].to(device)
    model = runtime.prepare_model(build_model(config, data)).to(device)
    if layout is not None:
        images, model = images.contiguous(memory_format=layout), model.to(memory_format=layout)
    optimizer = build_optimizer(config, model, find_decayed(config, model))
    compute_loss = build_loss(config).to(device)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(runtime.facts["precision"])

    def train_step() -> None:
        with torch.autocast(device, half, enabled=half is not None):
            loss = compute_loss(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    return train_step, len(images)


def time_steps(train_step: Callable[[], None], images: int, steps: int,
               clock: Callable[[], float] = time.perf_counter) -> float:
    """Images per second of so many steps, after one for warm-up."""
    train_step()
    started = clock()
    for _ in range(steps):
        train_step()
    return steps * images / (clock() - started)


def measure_bare(config: Config, out: Path, steps: int) -> None:
    """Write the speed of bare steps, in images per second, and the peak memory of this process to `out`."""
    from lightning_project.runtime import measure_peak_memory

    found = {"bare": measure_bare_speed(config, steps), "peak_memory_gib": measure_peak_memory()}
    out.write_text(json.dumps(found), encoding="utf-8")


def measure_bare_per_core(config: Config, out: Path, steps: int) -> None:
    """Write the speed of bare steps, in images per second of CPU time, to `out`."""
    out.write_text(json.dumps({"per_core": measure_bare_speed(config, steps, time.process_time)}), encoding="utf-8")


def measure_rounds(config: Config, out: Path, rounds: int) -> None:
    """Write the speed of `train` and of as many bare steps, in images per second, of each round to `out`."""
    from lightning_project.train import train

    measured = []
    for _ in range(rounds):
        result = train(config)
        steps = round(result["perf/epoch_seconds"] * result["perf/images_per_second"] / config.train.batch_size)
        measured.append({"train": result["perf/images_per_second"], "bare": measure_bare_speed(config, steps)})
    out.write_text(json.dumps(measured), encoding="utf-8")


def measure_training(config: Config, out: Path, epochs: int) -> None:
    """Write the seconds of the first and of later epochs of `train`, their steps and peak memory to `out`."""
    from lightning_project.train import train

    result = train(config)
    seconds = result["perf/epoch_seconds"]
    write_epochs(out, [result["perf/first_epoch_seconds"], seconds],
                 round(seconds * result["perf/images_per_second"] / config.train.batch_size))


def measure_stock_training(config: Config, out: Path, epochs: int) -> None:
    """The same of PyTorch and torchvision alone: a loop over a data loader, and ResNet-18 with the stem that images of
    32 pixels need."""
    import torch
    from PIL import Image
    from torch import nn
    from torch.utils.data import DataLoader, Dataset
    from torchvision.models import resnet18
    from torchvision.transforms import v2

    from shared.data.loading import load_data

    data = load_data(config)
    augment = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), v2.ToImage(),
                          v2.ToDtype(torch.float32, scale=True), v2.Normalize(data.mean, data.std)])

    class Pictures(Dataset):
        def __len__(self) -> int:
            return len(data.train)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return augment(Image.fromarray(data.train.pixels[index])), int(data.train.labels[index])

    loader = DataLoader(Pictures(), config.train.batch_size, shuffle=True, num_workers=2, persistent_workers=True,
                        drop_last=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = resnet18(num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    model.to(device)
    optimizer, compute_loss = torch.optim.Adam(model.parameters(), config.optimizer.lr), nn.CrossEntropyLoss()
    seconds = []
    for _ in range(epochs):
        started = time.perf_counter()
        for images, labels in loader:
            with torch.autocast(device, torch.bfloat16, enabled=config.hardware.precision == "bf16"):
                loss = compute_loss(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    write_epochs(out, seconds, len(loader))


def write_epochs(out: Path, seconds: list[float], steps: int) -> None:
    """Write what `shared.bench.article` reads: of the first epoch, of those that follow, and of this process."""
    from lightning_project.runtime import measure_peak_memory

    out.write_text(json.dumps({"steps": steps, "first_seconds": seconds[0], "later_seconds": min(seconds[1:]),
                               "peak_memory_gib": measure_peak_memory()}), encoding="utf-8")


def measure_input(config: Config, out: Path, seconds: int) -> None:
    """Write how many training images per second are read and augmented, without a model, and peak memory to `out`."""
    hardware.use_cores(config.hardware.workers)
    write_rates(out, read_input(config, seconds))


def read_input(config: Config, seconds: int) -> dict[str, float]:
    from lightning_project.data import DataModule
    from lightning_project.runtime import build_runtime
    from shared.data.cache import cache_images
    from shared.data.loading import load_data

    runtime, data = build_runtime(config), load_data(config)
    started = time.perf_counter()
    loaders = DataModule(config, cache_images(config, data), runtime)
    loader = loaders.train_dataloader()
    steps = len(loader)

    def read_epoch(epoch: int) -> int:
        loader.sampler.current_step = lambda: epoch * steps
        batches = (loaders.on_before_batch_transfer(batch, 0) for batch in loader)
        return sum(len(loaders.on_after_batch_transfer(batch, 0)["image"]) for batch in batches)
    return time_epochs(read_epoch, started, seconds)


def measure_stock_input(config: Config, out: Path, seconds: int) -> None:
    """The same of the recipe in torchvision's documentation."""
    hardware.use_cores(config.hardware.workers)
    write_rates(out, read_stock_input(config, seconds))


def read_stock_input(config: Config, seconds: int) -> dict[str, float]:
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    augment = v2.Compose([
        v2.ToImage(), v2.RandomResizedCrop(config.dataset.image_size, antialias=True), v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    started = time.perf_counter()
    images = ImageFolder(f"{config.dataset.root}/train", augment)
    loader = DataLoader(images, config.train.batch_size, shuffle=True, num_workers=config.hardware.workers,
                        persistent_workers=True, drop_last=True)
    return time_epochs(lambda epoch: sum(len(batch) for batch, _ in loader), started, seconds)


def write_rates(out: Path, rates: dict[str, float]) -> None:
    """Write speeds of reading and peak memory, in GiB, with the readers', which have ended."""
    memory = hardware.measure_peak_memory() + hardware.measure_peak_memory(of_children=True)
    out.write_text(json.dumps(rates | {"peak_memory_gib": memory}), encoding="utf-8")


if __name__ == "__main__":
    measure = {"rounds": measure_rounds, "bare": measure_bare, "bare_per_core": measure_bare_per_core,
               "training": measure_training, "stock_training": measure_stock_training, "input": measure_input,
               "stock_input": measure_stock_input}[sys.argv[3]]
    measure(load_config(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[4]))
