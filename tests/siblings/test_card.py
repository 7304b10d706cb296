"""timm builds the model of a card's folder and gives the logits of the model that it was made of."""

import importlib.util
import json
import re
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from shared.models import MODELS

pytestmark = [pytest.mark.timeout(300), pytest.mark.parametrize("sibling", ["lightning"], indirect=True),
              pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")]

# Data set, image size and further keys: grey and colour, small patches and large, and a model that timm has alone.
CASES = {"resnet18": ("fashion_mnist", 96), "resnet34": ("cifar10", 96), "resnet50": ("cifar10", 96),
         "efficientnet_b0": ("fashion_mnist", 32), "efficientnet_b3": ("cifar10", 32), "vit_tiny": ("cifar10", 32),
         "vit_small": ("fashion_mnist", 96), "vit_base": ("cifar10", 32),
         "timm:deit_tiny_distilled_patch16_224": ("cifar10", 32)}


def write_card_of(name, dataset, size, folder):
    """A card of an untrained model, that model and its config."""
    import torch

    from lightning_project.models import build_model, neutral_weights
    from shared.artifacts.card.command import make_card
    from shared.config import parse_config
    from shared.data.definitions import find_definition
    from shared.data.preprocessing import Preprocessing
    from shared.runs.trained import Trained
    from shared.weights.file import save_weights

    torch.set_default_dtype(torch.float32)
    config = parse_config([f"model.name={name}", f"dataset.name={dataset}", f"dataset.image_size={size}"], "", "")
    definition = find_definition(dataset, config.dataset.variant)
    classes = definition.classes or tuple(map(str, range(10)))
    model = build_model(config, Trained(config, classes, Preprocessing.of_config(config), None, None)).eval()
    torch.manual_seed(0)
    with torch.no_grad():  # statistics and scales too, which are all alike in a new model
        for tensor in model.state_dict().values():
            if tensor.dtype == torch.float32 and tensor.ndim == 1:
                tensor.add_(0.1 * torch.rand_like(tensor))
    save_weights(folder / "a.safetensors", neutral_weights(model), config, classes)
    return make_card(str(folder / "a.safetensors")), model, config


def compare_logits(sibling, name, dataset, size, folder):
    """Our logits, timm's and the names of the classes. ResNets and ViTs have fewer blocks than usual, so that weights
    are written and read in little time."""
    import timm
    import torch

    from shared.models import RESNETS, VITS

    small = {"resnet": {"layers": (1, 1, 1, 1)}, "vit": {"depth": 2}}.get(name.partition("_")[0].rstrip("0123456789"))
    with mock.patch.dict(RESNETS, {known: ((1, 1, 1, 1), kind) for known, (_, kind) in RESNETS.items()}), \
            mock.patch.dict(VITS, {known: (width, 2, heads) for known, (width, _, heads) in VITS.items()}):
        card, ours, _ = write_card_of(name, dataset, size, folder)
    if small:
        content = json.loads((card / "config.json").read_text())
        content.setdefault("model_args", {}).update(small)
        (card / "config.json").write_text(json.dumps(content))
    theirs = timm.create_model(f"local-dir:{card}", pretrained=True).eval()
    channels = 1 if dataset == "fashion_mnist" else 3
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(3, channels, size, size)).astype(np.float32))
    with torch.no_grad():
        return ours(images).numpy(), theirs(images).numpy(), theirs.pretrained_cfg["label_names"]


@pytest.mark.parametrize("name", [*(name for name, entry in MODELS.items() if entry.published),
                                  "timm:deit_tiny_distilled_patch16_224"])
def test_timm_gives_the_logits(sibling, tmp_path, name):
    ours, theirs, classes = sibling.call(compare_logits, name, *CASES[name], tmp_path)
    assert np.ptp(ours) > 1e-2
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5 * np.abs(ours).max())
    assert len(classes) == ours.shape[1]


def run_code_of_card(sibling, name, dataset, size, folder):
    """What the card's code prints for an image, and our probabilities for it."""
    import contextlib
    import io

    import torch

    from shared.data.decode import open_rgb
    from shared.data.preprocessing import Preprocessing

    card, model, config = write_card_of(name, dataset, size, folder)
    code = re.search(r"```python\n(.*?)```", (card / "README.md").read_text(), re.DOTALL)[1]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code.replace("FOLDER", str(card)).replace("IMAGE", str(folder / "image.png")), {})
    steps = Preprocessing.of_config(config)
    pixels = steps.normalise(steps.scale(open_rgb(folder / "image.png")))
    with torch.no_grad():
        return out.getvalue(), model(torch.from_numpy(pixels.transpose(2, 0, 1)[None])).softmax(1)[0].numpy()


@pytest.mark.parametrize(("name", "dataset", "size"), [("vit_tiny", "imagenette", 64), ("resnet18", "cifar10", 32)])
def test_the_code_on_the_card_does_what_evaluation_does(sibling, tmp_path, name, dataset, size):
    side = 50 if dataset == "imagenette" else size  # what was stored as pixels is not scaled
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)).save(tmp_path / "image.png")
    printed, ours = sibling.call(run_code_of_card, name, dataset, size, tmp_path)
    assert float(printed.split()[-1]) == pytest.approx(ours.max(), rel=1e-5)
