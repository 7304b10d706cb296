"""Checkpoints in timm's format: through our code into both siblings, with the logits of timm's own model."""

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shared.config import Config, ModelConfig
from shared.datasets.imagenet import read_synsets
from shared.errors import UserError
from shared.machine.files import REPOSITORY
from shared.machine.interpreters import is_installed, list_siblings
from shared.models import MODELS
from shared.training.best import BestEpoch
from shared.weights.file import save_weights
from shared.weights.pretrained import apply_checkpoint_preprocessing, find_checkpoint
from shared.weights.start import choose_starting_point, choose_starting_weights
from tests.conftest import Sibling, train
from tests.siblings.test_zoo import start

needs_timm = pytest.mark.skipif(not (is_installed("lightning") and importlib.util.find_spec("timm")),
                                reason="timm or PyTorch is not installed")
SIZE = 64  # pixels, 16 patches in place of a ViT's own 196


def save_with_timm(_, name, folder, classes, size=SIZE):
    """Save timm's model with random weights and statistics; return its logits (2, classes) in float64, in evaluation
    and in training mode."""
    import timm
    import torch
    from timm.models import save_for_hf

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32)
    options = {"img_size": size} if "vit" in name else {}
    model = timm.create_model(MODELS[name].published.timm, num_classes=classes, **options)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.dtype == torch.float32 and tensor.ndim == 1:
                tensor.add_(0.1 * torch.rand_like(tensor))
    model.pretrained_cfg["crop_pct"] = 0.9
    save_for_hf(model, folder, safe_serialization=True)
    images = torch.linspace(-1, 1, 2 * 3 * size * size, dtype=torch.float64).reshape(2, 3, size, size).sin()
    with torch.no_grad():
        return [model.double().train(training)(images).numpy() for training in (False, True)]


def logits_of(sibling, name, folder, classes, size=SIZE):
    """The same images through our model, started from the checkpoint; and what tensors leave it otherwise than they
    came."""
    config, models, model = start(sibling, name, f"model.pretrained={folder}", "hardware.precision=fp64", size=size,
                                  classes=classes)
    weights, _ = choose_starting_weights(config, MODELS[config.model.name], models.neutral_weights(model))
    models.load_weights(model, weights)
    back = models.neutral_weights(model)
    changed = [name for name in weights if not np.array_equal(back.pop(name), weights[name])] + list(back)
    images = np.sin(np.linspace(-1, 1, 2 * 3 * size * size).reshape(2, 3, size, size))
    if sibling == "lightning":
        import torch

        with torch.no_grad():
            return [model.train(training)(torch.from_numpy(images)).numpy() for training in (False, True)], changed
    images = images.transpose(0, 2, 3, 1)
    return [model(images, training=training).numpy() for training in (False, True)], changed


@pytest.fixture(scope="module")
def with_torch():
    process = Sibling("lightning")
    yield process
    process.pool.shutdown()


@pytest.fixture(scope="module")
def saved(with_torch, tmp_path_factory):
    """`saved(name)`: a folder that timm wrote, and timm's logits."""
    kept = {}

    def save_weights(name):
        if name not in kept:
            folder = tmp_path_factory.mktemp(name)
            kept[name] = folder, with_torch.call(save_with_timm, name, str(folder), 7)
        return kept[name]
    yield save_weights
    for folder, _ in kept.values():  # 800 MB, which pytest would keep for three sessions
        shutil.rmtree(folder)


@needs_timm
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_timms_and_weights_travel_both_ways(saved, sibling, name):
    folder, expected = saved(name)
    found, changed = sibling.call(logits_of, name, str(folder), 7)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    assert changed == []


def resized_by_timm(_, place, size):
    import torch
    from timm.layers import resample_abs_pos_embed

    return resample_abs_pos_embed(torch.from_numpy(place), [size, size], num_prefix_tokens=1).numpy()


@needs_timm
@pytest.mark.parametrize("size", [4, 9, 24])
def test_a_position_embedding_is_scaled_as_in_timm(with_torch, size):
    from shared.weights.pretrained import resize_position_embedding

    place = np.random.default_rng(0).normal(size=(1, 1 + 14 * 14, 8)).astype(np.float32)
    expected = with_torch.call(resized_by_timm, place, size)
    np.testing.assert_allclose(resize_position_embedding(place, size**2), expected, atol=1e-5)


# The rest needs no framework: a checkpoint of few tensors, and the shapes of a model.

@pytest.fixture
def checkpoint(tmp_path):
    """A ResNet-18's first and last tensors in timm's format."""
    random = np.random.default_rng(0)
    tensors = {"conv1.weight": random.normal(size=(64, 3, 7, 7)), "fc.weight": random.normal(size=(1000, 512)),
               "fc.bias": random.normal(size=1000)}
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_file({**{name: tensor.astype(np.float32) for name, tensor in tensors.items()},
               "bn1.num_batches_tracked": np.array(3)}, folder / "model.safetensors")
    facts = {"architecture": "resnet18", "num_classes": 1000, "pretrained_cfg": {
        "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bicubic", "crop_pct": 0.9}}
    (folder / "config.json").write_text(json.dumps(facts))
    return folder


def start_from(folder, classes=1000, channels=3, folders=()):
    built = {"conv1.weight": np.zeros((64, channels, 7, 7)), "fc.weight": np.eye(classes, 512),
             "fc.bias": np.zeros(classes)}
    config = Config(model=ModelConfig(pretrained=str(folder)))
    return choose_starting_weights(config, MODELS["resnet18"], built, folders)


def test_head_stays_for_as_many_classes_and_is_drawn_anew_for_others(checkpoint):
    given = load_file(checkpoint / "model.safetensors")
    whole, words = start_from(checkpoint)
    assert words == f"weights from {checkpoint}"
    assert all(np.array_equal(whole[name], given[name]) for name in whole)
    own, words = start_from(checkpoint, folders=tuple(f"class{i}" for i in range(1000)))  # as many, but not ImageNet's
    assert not own["fc.bias"].any()
    assert words.endswith("; fc.weight, fc.bias drawn anew for 1000 classes")
    other, words = start_from(checkpoint / "model.safetensors", classes=12)
    assert np.array_equal(other["conv1.weight"], given["conv1.weight"])
    assert other["fc.weight"].shape == (12, 512)
    assert not other["fc.bias"].any()
    assert words.endswith("; fc.weight, fc.bias drawn anew for 12 classes")


def test_head_of_imagenet_is_taken_by_name(checkpoint):
    given = load_file(checkpoint / "model.safetensors")
    # tench, English springer and parachute are classes 0, 217 and 701.
    weights, words = start_from(checkpoint, classes=3, folders=("n01440764", "n02102040", "n03888257"))
    assert np.array_equal(weights["fc.weight"], given["fc.weight"][[0, 217, 701]])
    assert np.array_equal(weights["fc.bias"], given["fc.bias"][[0, 217, 701]])
    assert words.endswith("; head of ImageNet's 3 classes by name")
    assert list(read_synsets()).index("n02102040") == 217
    assert list(read_synsets().values())[701] == "parachute"
    assert len(set(read_synsets().values())) == 1000


def test_grey_images_see_the_sum_of_the_first_kernels_colours(checkpoint):
    given = load_file(checkpoint / "model.safetensors")
    weights, words = start_from(checkpoint, channels=1)
    assert "first kernel summed over colours" in words
    np.testing.assert_allclose(weights["conv1.weight"][:, 0], given["conv1.weight"].sum(axis=1), rtol=1e-6)


def test_the_checkpoints_preprocessing_is_applied_and_kept_in_the_config(checkpoint):
    config = apply_checkpoint_preprocessing(Config(model=ModelConfig(pretrained=str(checkpoint))))
    assert config.dataset.mean == [0.1, 0.2, 0.3]
    assert config.dataset.std == [0.4, 0.5, 0.6]
    assert (config.dataset.interpolation, config.dataset.center_crop) == ("bicubic", 0.9)
    assert config.model.stem == "large"
    assert apply_checkpoint_preprocessing(Config()) == Config()
    from shared.batches.data import load_data
    grey = load_data(config)  # the digits
    assert grey.mean == pytest.approx((0.2,))
    assert grey.std == pytest.approx((0.5,))


@pytest.mark.parametrize(("change", "says"), [
    ({"architecture": "resnet50"}, "holds a resnet50, and model.name=resnet18 is timm's resnet18"),
    ({"pretrained_cfg": {}}, r"config.json is not a checkpoint's config of timm's \(KeyError: 'mean'\)"),
    ({"pretrained_cfg": {"mean": [0, 0, 0], "std": [0, 0, 0], "interpolation": "bicubic", "crop_pct": 1}},
     "checkpoint: dataset.mean=.* and std above 0"),
])
def test_a_checkpoint_of_something_else_is_refused(checkpoint, change, says):
    facts = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(facts | change))
    with pytest.raises(UserError, match=says):
        apply_checkpoint_preprocessing(Config(model=ModelConfig(pretrained=str(checkpoint))))


def test_odd_tensors_are_told_in_a_line(checkpoint):
    save_file({"conv1.weight": np.zeros(3, np.float32)}, checkpoint / "model.safetensors")
    with pytest.raises(UserError, match=r"safetensors does not fit model\.name=resnet18 \(IndexError: .*use the"):
        start_from(checkpoint, channels=1)


def test_a_run_goes_on_though_the_checkpoint_it_began_with_is_gone(checkpoint, tmp_path):
    kept = apply_checkpoint_preprocessing(Config(model=ModelConfig(pretrained=str(checkpoint))))
    shutil.rmtree(checkpoint)
    kept.resume = str(tmp_path)
    assert apply_checkpoint_preprocessing(kept) == kept
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    built = {"conv1.weight": np.zeros((64, 3, 7, 7))}
    assert choose_starting_point(kept, MODELS["resnet18"], built).keys() == {"conv1.weight"}


def test_what_contradicts_a_checkpoint_is_refused(checkpoint, tmp_path):
    with pytest.raises(UserError, match="have the large stem"):
        apply_checkpoint_preprocessing(Config(model=ModelConfig(pretrained=str(checkpoint), stem="small")))
    with pytest.raises(UserError, match=r"model.safetensors does not exist; name a folder"):
        find_checkpoint(Config(model=ModelConfig(pretrained=str(tmp_path))))


def run_offline(sibling, home, *words):
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([sys.executable, f"{sibling}_project/train.py", "model.pretrained=true", *words],
                          cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=200)


@pytest.mark.parametrize("sibling", list_siblings())
def test_offline_without_the_checkpoint_one_line_says_what_to_do(tmp_path, sibling):
    done = run_offline(sibling, tmp_path / "hub", f"output_dir={tmp_path / 'runs'}")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: model.pretrained=true: timm/resnet18.a1_in1k is not in the hub's cache")
    assert "HF_HUB_OFFLINE" in done.stderr
    assert "model.pretrained=FOLDER" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("endpoint", ["localhost:9", "http://[bad"])
def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path, endpoint):
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": endpoint}
    done = subprocess.run([sys.executable, f"{list_siblings()[0]}_project/train.py", "model.pretrained=true"],
                          cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    *before, last = done.stderr.splitlines()
    assert before in ([], [f"asking {endpoint} for timm/resnet18.a1_in1k/config.json"])
    assert last.startswith("error: model.pretrained=true: timm/resnet18.a1_in1k is not in the hub's cache")


def fetched(folder, **environment):
    """What a program with this `environment` is told of ResNet-18's published checkpoint."""
    program = ("from shared.config import Config, ModelConfig; from shared.weights.pretrained import find_checkpoint; "
               "print(find_checkpoint(Config(model=ModelConfig(pretrained='true'))))")
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
                          env=os.environ | {"HF_HOME": str(folder)} | environment)
    assert done.returncode == 0, done.stderr
    assert "source='timm/resnet18.a1_in1k'" in done.stdout
    return done.stdout


class Hub(BaseHTTPRequestHandler):
    """A mirror of the hub that has one checkpoint, in the folder `checkpoint`."""

    checkpoint: Path

    def do_HEAD(self):
        repository, _, name = self.path.partition("/resolve/main/")
        assert repository == "/timm/resnet18.a1_in1k"
        content = (self.checkpoint / name).read_bytes()
        self.send_response(200)
        for header, value in {"ETag": f'"{zlib.crc32(content):08x}"', "X-Repo-Commit": "1" * 40,
                              "Content-Length": len(content)}.items():
            self.send_header(header, value)
        self.end_headers()
        return content

    def do_GET(self):
        self.wfile.write(self.do_HEAD())

    def log_message(self, *words):
        pass


def test_a_checkpoint_is_fetched_from_a_mirror_once(checkpoint, tmp_path):
    handler = type("Handler", (Hub,), {"checkpoint": checkpoint})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        online = fetched(tmp_path / "hub", HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    found = next((tmp_path / "hub").rglob("snapshots/*/model.safetensors"))
    assert found.read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    assert fetched(tmp_path / "hub", HF_HUB_OFFLINE="1") == online


def test_offline_a_cached_checkpoint_is_found_by_the_hubs_own_client(checkpoint, tmp_path):
    revision = "0" * 40
    cached = tmp_path / "hub" / "hub" / "models--timm--resnet18.a1_in1k"
    (cached / "snapshots").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(revision)
    shutil.copytree(checkpoint, cached / "snapshots" / revision)
    assert revision in fetched(tmp_path / "hub", HF_HUB_OFFLINE="1")


@pytest.fixture
def few_real_images(real_data, tmp_path):
    """The first images of each class of CIFAR-10, as JPEG files in folders: 12 to train, 3 to test."""
    with tarfile.open(real_data / "cifar10-jpeg.tar.gz") as tar:
        for member in tar:
            split, _, name = member.name.partition("/")
            if member.isfile() and int(Path(name).stem) < {"train": 12, "test": 3}[split]:
                tar.extract(member, tmp_path / "images", filter="data")
    return tmp_path / "images"


def trained_with_weights_of_each_epoch(sibling, *words):
    """A training whose every epoch is kept as if it were the best, and the weights of each."""
    checkpoints, kept, update = importlib.import_module(f"{sibling}_project.checkpoints"), [], BestEpoch.update

    def always(best, value, epoch):
        update(best, value, epoch)
        return True

    def keep(path, weights, *rest):
        kept.append({name: tensor.copy() for name, tensor in weights.items()})
        save_weights(path, weights, *rest)
    with mock.patch.object(checkpoints, "save_weights", keep), mock.patch.object(BestEpoch, "update", always):
        return train(sibling, *words), kept


@needs_timm
def test_both_phases_of_the_transfer_preset_on_real_images(with_torch, sibling, few_real_images, tmp_path):
    with_torch.call(save_with_timm, "efficientnet_b0", str(tmp_path / "checkpoint"), 1000)
    done, epochs = sibling.call(
        trained_with_weights_of_each_epoch, str(tmp_path / "runs"), "configs/image_folder_efficientnet_b0.yaml",
        f"dataset.root={few_real_images}", f"model.pretrained={tmp_path / 'checkpoint'}", "dataset.image_size=32",
        "train.epochs=2", "train.unfreeze_epoch=1", "schedule.warmup_epochs=0", "hardware.workers=0")
    assert done["error"] is None, done["error"]
    assert "classifier.weight, classifier.bias drawn anew for 10 classes" in done["err"]
    assert "nothing but classifier trains in the first 1 of 2 epochs" in done["err"]
    given = load_file(tmp_path / "checkpoint" / "model.safetensors")
    head = {"classifier.weight", "classifier.bias"}
    frozen, freed = ({name for name in weights.keys() - head if not np.array_equal(weights[name], given[name])}
                     for weights in epochs)
    assert frozen == set()
    assert freed == epochs[0].keys() - head
    assert np.isfinite(done["result"]["test/loss"])
