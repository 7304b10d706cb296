"""The code with which a reader of the card loads the model. Tests run it."""

from typing import Any

from shared.artifacts.card.timm_format import has_small_stem
from shared.models import MODELS
from shared.runs.trained import Trained

THROUGH_TIMM = """\
```python
import timm
import torch
from PIL import Image

# "hf-hub:OWNER/NAME" once the folder is uploaded
model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
image = Image.open("IMAGE").convert("MODE")
with torch.no_grad():
    probabilities = model(transform(image)[None]).softmax(dim=1)[0]
print(model.pretrained_cfg["label_names"][probabilities.argmax()], float(probabilities.max()))
```"""

WITH_SMALL_STEM = """\
```python
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

model = timm.create_model("ARCHITECTURE", num_classes=CLASSES, in_chans=CHANNELS)
model.conv1 = torch.nn.Conv2d(CHANNELS, 64, 3, padding=1, bias=False)  # the small stem
model.maxpool = torch.nn.Identity()
model.load_state_dict(load_file("FOLDER/model.safetensors"))
model.eval()
transform = timm.data.create_transform(INPUT, interpolation="INTERPOLATION", crop_pct=CROP, mean=MEAN, std=STD)
image = Image.open("IMAGE").convert("MODE")
with torch.no_grad():
    probabilities = model(transform(image)[None]).softmax(dim=1)[0]
print(int(probabilities.argmax()), float(probabilities.max()))
```"""


def show_loading(trained: Trained, facts: dict[str, Any] | None) -> list[str]:
    """The paragraphs of the card's section."""
    name, steps = trained.config.model.name, trained.preprocessing
    again = ("To go on training from it in lightning-keras-template, in either sibling that has the model: "
             f"`init_from=FOLDER/model.safetensors model.name={name}`.")
    values = {"MODE": "L" if trained.channels == 1 else "RGB"}
    if facts:
        return [fill(THROUGH_TIMM, values), again]
    if has_small_stem(trained):
        values |= {"ARCHITECTURE": MODELS[name].published.timm, "CLASSES": str(len(trained.classes)),
                   "CHANNELS": str(trained.channels), "INTERPOLATION": steps.interpolation,
                   "INPUT": str((trained.channels, steps.image_size, steps.image_size)),
                   "CROP": f"{steps.center_crop:g}", "MEAN": str(steps.mean), "STD": str(steps.std)}
        return ["timm has this network with the large stem only; two of its layers are replaced:",
                fill(WITH_SMALL_STEM, values), again]
    return [again]


def fill(code: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        code = code.replace(name, value)
    return code
