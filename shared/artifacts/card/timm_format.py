"""What timm needs to build a trained model and to prepare its images: config.json in timm's format.

The fields are those that `timm.models.save_for_hf` writes. https://huggingface.co/docs/timm/hf_hub
"""

import json
import subprocess
from typing import Any

from shared.errors import UserError
from shared.machine.interpreters import list_variables, require_interpreter
from shared.models import MODELS, PATCH, choose_patch, choose_stem, split_library_name
from shared.runs.trained import Trained
from shared.weights.file import Weights

# Run by the Lightning sibling's Python, which has timm.
ASK = "import json, sys, timm; print(json.dumps(timm.get_pretrained_cfg(sys.argv[1]).to_dict()))"
TASK_FIELDS = ("first_conv", "classifier", "fixed_input_size", "pool_size")


class UnknownToTimmError(Exception):
    """timm cannot build this model. The message is the end of a sentence that begins with that."""


def describe_for_timm(trained: Trained, weights: Weights) -> dict[str, Any]:
    """The content of config.json for a trained model.

    Raises:
        UnknownToTimmError: where timm cannot build the model.
    """
    architecture, facts, arguments = find_architecture(trained)
    heads = [facts["classifier"]] if isinstance(facts["classifier"], str) else facts["classifier"]
    preprocessing, size = trained.preprocessing, trained.image_size
    content = {"architecture": architecture, "num_classes": len(trained.classes),
               "num_features": weights[f"{heads[0]}.weight"].shape[1],
               "label_names": list(trained.classes)}
    if arguments:
        content["model_args"] = arguments
    content["pretrained_cfg"] = {
        "custom_load": False, "input_size": [trained.channels, size, size],
        "interpolation": preprocessing.interpolation, "crop_pct": preprocessing.center_crop, "crop_mode": "center",
        "mean": list(preprocessing.mean), "std": list(preprocessing.std), "num_classes": len(trained.classes), **facts}
    return content


def has_small_stem(trained: Trained) -> bool:
    """Whether it is a ResNet whose first layers are not timm's."""
    settings = trained.config.model
    entry = MODELS.get(settings.name)
    return bool(entry and entry.published) and entry.builder == "resnet" \
        and choose_stem(settings.stem, trained.image_size) == "small"


def find_architecture(trained: Trained) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """timm's name of the model, the TASK_FIELDS that timm knows about it, and arguments to build it with."""
    settings = trained.config.model
    if library := split_library_name(settings.name):
        if library[0] != "timm":
            raise UnknownToTimmError(f"model.name={settings.name}, a model of another library")
        facts = ask_timm(library[1])
        arguments = {"img_size": trained.image_size} if facts["fixed_input_size"] else {}
        return library[1].partition(".")[0], facts, arguments
    entry = MODELS[settings.name]
    if entry.published is None:
        raise UnknownToTimmError(f"model.name={settings.name}, a model of this repository alone")
    if has_small_stem(trained):
        raise UnknownToTimmError("a ResNet with the small stem by itself; the card shows the four lines that do")
    facts = {"first_conv": entry.first_kernel.removesuffix(".weight"), "classifier": entry.head,
             "fixed_input_size": entry.builder == "vit", "pool_size": None}
    arguments = {}
    if entry.builder == "vit":
        arguments["img_size"] = trained.image_size
        if (patch := choose_patch(settings.patch_size, trained.image_size)) != PATCH:
            arguments["patch_size"] = patch
    return entry.published.timm, facts, arguments


def ask_timm(name: str) -> dict[str, Any]:
    """The TASK_FIELDS of one of timm's own models. Raises `UnknownToTimmError` where there is no timm to ask."""
    try:
        python = require_interpreter("lightning")
    except UserError:
        raise UnknownToTimmError(f"timm:{name} as far as is known here, since the lightning sibling is not "
                                 "installed") from None
    done = subprocess.run([python, "-c", ASK, name], env=list_variables(), capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise UnknownToTimmError(f"timm:{name} as far as is known here ({reason})")
    facts = json.loads(done.stdout)
    return {field: facts.get(field) for field in TASK_FIELDS}
