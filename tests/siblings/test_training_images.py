"""Trainings on images in files, and what the augmentation of the libraries makes of them, in each sibling."""

import importlib
import json
import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Sibling, train


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def policed(sibling: str, policy: str, channels: int) -> np.ndarray:
    """A batch of grey ramps under a library's policy, (32, 16, 16, C), back in 0 to 255."""
    from shared.config import AugmentConfig
    module = importlib.import_module(f"{sibling}_project.augment")
    ramp = np.broadcast_to(np.arange(16, dtype=np.uint8)[:, None, None] * 16, (32, 16, 16, channels)).copy()
    batch = {"image": ramp, "flip": np.zeros(32, bool), "target": np.eye(32, 10, dtype=np.float32)}
    settings = AugmentConfig(policy=policy)
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    if sibling == "lightning":
        import torch
        torch.manual_seed(0)
        augment = module.Augmentation(settings, zeros, ones, torch.float32)
        images = augment({name: torch.from_numpy(array) for name, array in batch.items()})
        return images.permute(0, 2, 3, 1).numpy() * 255
    import keras
    import tensorflow as tf
    keras.utils.set_random_seed(0)
    augment = module.Augmentation(settings, zeros, ones, tf.float32)
    dataset = tf.data.Dataset.from_tensors({name: tf.constant(array) for name, array in batch.items()}).map(augment)
    return next(iter(dataset)).numpy() * 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", ["randaugment", "augmix", "random_erasing"])
def test_library_policies_change_each_image_in_its_own_way(sibling, policy, channels):
    images = sibling.call(policed, policy, channels)
    assert images.shape == (32, 16, 16, channels)
    assert images.min() >= -0.5
    assert images.max() <= 255.5
    # Half of the images may stay as they are (random erasing); of 32, fewer than 3 changed is one case in 8 million.
    assert len(np.unique(images.reshape(32, -1).round(2), axis=0)) > 3


def pictures(root: Path, classes: int = 2, number: int = 20) -> None:
    """Colour images of several sizes, a folder per class; the classes differ in brightness."""
    draws = np.random.default_rng(0)
    for split, count in (("train", number), ("test", 4)):
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                noise = draws.integers(0, 100, (20 + i, 30, 3), np.uint8) + np.uint8(100 * label)
                Image.fromarray(noise).save(folder / f"{i}.png")


def test_image_folder_trains_with_parallel_readers(sibling, tmp_path):
    pictures(tmp_path / "pictures")
    words = ["configs/image_folder.yaml", f"dataset.root={tmp_path / 'pictures'}", "dataset.image_size=32",
             "train.batch_size=8", "train.epochs=1", "schedule.warmup_epochs=0"]
    one = sibling.call(train, str(tmp_path / "one"), *words, "hardware.workers=0")
    two = sibling.call(train, str(tmp_path / "two"), *words, "hardware.workers=2")
    assert one["error"] is None, one["error"]
    assert two["error"] is None, two["error"]
    # Readers change who reads a batch, not what is in it.
    first = [[row["train/loss_step"] for row in rows(done["run"])[:1]] for done in (one, two)]
    assert first[0] == pytest.approx(first[1], rel=1e-6)


@pytest.mark.parametrize("crop", ["pad", "resized"])
def test_a_training_from_kept_pixels_is_the_same_to_the_last_bit(sibling, tmp_path, crop):
    pictures(tmp_path / "pictures")
    words = ["dataset.name=image_folder", f"dataset.root={tmp_path / 'pictures'}", "dataset.image_size=24",
             "train.batch_size=8", "schedule.warmup_epochs=0", "hardware.workers=2", f"augment.crop={crop}",
             "hardware.precision=fp32"]
    done = [sibling.call(train_with_cache, str(tmp_path), str(tmp_path / kind), *words, f"dataset.cache={kind}")
            for kind in ("none", "memory", "disk", "disk")]
    assert [one["error"] for one in done] == [None] * 4
    traces = [[{name: value for name, value in row.items() if name.startswith(("train/", "val/"))}
               for row in rows(one["run"])] for one in done]
    assert traces[0]
    assert traces.count(traces[0]) == 4
    assert len(list((tmp_path / "cache" / "decoded").glob("*.images"))) == 1


def train_with_cache(sibling: str, place: str, *words: str) -> dict:
    with mock.patch.dict(os.environ, TEMPLATE_CACHE=f"{place}/cache"):
        return train(sibling, *words)


def peaks(sibling: str, root: str) -> list[float]:
    """Peak memory of this process in MiB after an epoch of 60 images of a folder, and after one of 600."""
    from shared.config import parse_config
    from shared.data.loading import load_data
    from shared.machine.hardware import measure_peak_memory

    data_module = importlib.import_module(f"{sibling}_project.data")
    found = []
    for limit in (60, 600):
        config = parse_config(["configs/image_folder.yaml", f"dataset.root={root}", f"dataset.limit_train={limit}",
                        "train.batch_size=10", "train.epochs=1", "schedule.warmup_epochs=0",
                        "hardware.workers=0"], "", "")
        runtime, data = importlib.import_module(f"{sibling}_project.runtime").build_runtime(config), load_data(config)
        batches = data_module.DataModule(config, data, runtime).train_dataloader() if sibling == "lightning" \
            else data_module.build_train_dataset(config, data, runtime)
        read = sum(len(batch["image"] if sibling == "lightning" else batch[0]) for batch in batches)
        assert limit * 0.8 < read <= limit
        found.append(measure_peak_memory() * 1024)
    return found


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(sibling, tmp_path):
    pictures(tmp_path / "pictures", number=320)
    alone = Sibling(sibling.name)  # whose peak nothing has raised yet
    few, many = alone.call(peaks, str(tmp_path / "pictures"))
    alone.pool.shutdown()
    assert many - few < 40  # of 480 more images, 70 MiB in bytes and 280 as floats, none is kept


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_image_stops_with_its_name(sibling, tmp_path, workers):
    pictures(tmp_path / "pictures")
    bad = tmp_path / "pictures" / "train" / "class1" / "3.png"
    bad.write_bytes(bad.read_bytes()[:60])
    words = ["dataset.name=image_folder", f"dataset.root={tmp_path / 'pictures'}", "dataset.image_size=32",
             "train.batch_size=6", "train.epochs=1", f"hardware.workers={workers}"]
    stopped = sibling.call(train, str(tmp_path / "runs"), *words)
    assert str(bad) in stopped["error"]
    assert "\n" not in stopped["error"]
    assert "dataset.on_bad_image=skip" in stopped["error"]
    skipped = sibling.call(train, str(tmp_path / "runs"), *words, "dataset.on_bad_image=skip")
    assert skipped["error"] is None, skipped["error"]
    assert json.loads((skipped["run"] / "run.json").read_text())["skipped_images"] == 1


def test_a_test_image_that_cannot_be_read_costs_no_training(sibling, tmp_path):
    pictures(tmp_path / "pictures")
    bad = tmp_path / "pictures" / "test" / "class1" / "3.png"
    bad.write_bytes(bad.read_bytes()[:60])
    words = ["dataset.name=image_folder", f"dataset.root={tmp_path / 'pictures'}", "dataset.image_size=32",
             "train.batch_size=6", "train.epochs=1", "schedule.warmup_epochs=0", "hardware.workers=0"]
    stopped = sibling.call(train, str(tmp_path / "runs"), *words)
    assert str(bad) in stopped["error"]
    gone_on = sibling.call(train, str(tmp_path / "runs"), *words, "dataset.on_bad_image=skip", "resume=auto")
    assert gone_on["error"] is None, gone_on["error"]
    assert gone_on["run"] == stopped["run"]
    assert "(best epoch 1, 7 images)" in gone_on["out"]
    assert "epoch 1/1" not in gone_on["out"]


def test_real_fashion_mnist_loads_as_it_lies(sibling, tmp_path, real_data):
    done = sibling.call(train, str(tmp_path), "configs/fashion_mnist_resnet18.yaml", "schedule.warmup_epochs=0",
                        f"dataset.root={real_data / 'fashion-mnist'}", "dataset.limit_train=400", "train.epochs=1",
                        "train.batch_size=40", "debug.limit_batches=3")
    assert done["error"] is None, done["error"]
    assert json.loads((done["run"] / "run.json").read_text())["sizes"]["train"] == 360
