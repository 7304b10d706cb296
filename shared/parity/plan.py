"""The tasks that each rung of the ladder needs, as variants of the user's config."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from shared.config import Config, DatasetConfig, DebugConfig, ModelConfig, list_keys, require_support, validate_config
from shared.data.loading import Data, load_data
from shared.errors import UserError
from shared.models import MODELS, choose_stem
from shared.parity.pictures import write_noise, write_pictures
from shared.parity.request import MARKS, Task
from shared.weights.pretrained import apply_checkpoint_preprocessing

RUNGS = {1: "data", 2: "pixels", 3: "start", 4: "logits", 5: "loss and gradients", 6: "learning rate", 7: "steps",
         8: "epoch metrics", 9: "scores"}
BOTH_STEMS = ("resnet18",)  # compared with either stem; the other ResNets have the same two
OPTIMIZERS = {"sgd": (0.05, 5e-4), "adam": (1e-3, 5e-4), "adamw": (1e-3, 0.05), "lion": (1e-4, 0.5),
              "muon": (1e-3, 0.05)}  # learning rate, weight decay
FIT_STEPS = {"muon": MARKS[1]}  # fewer than of the others, since a step of Muon takes seconds on a CPU in float64

# The losses that rungs 5 and 7 to 9 compare beside the config's own, with class weights and class balance among them.
LOSSES = {"weighted": {"train__class_weights": "balanced"},
          "binary": {"train__loss": "binary_cross_entropy", "train__class_weights": "sqrt"},
          "focal": {"train__loss": "focal", "train__class_weights": "balanced", "dataset__balance": "oversample",
                    "augment__alternating_flip": False, "train__metrics": ["top5", "macro_f1"]}}

# What no other case has: a model whose first layer is computed from the images, and steps of its recipe. Its images are
# noise, because in even areas max pooling has equal values to choose from, of which rounding errors decide.
AIRBENCH = {"model": ModelConfig(name="airbench"), "init_from": "", "optimizer__norm_bias_lr_factor": 8.0,
            "optimizer__decay_norm_and_bias": True, "train__lookahead_every": 5, "evaluate__tta": "mirror_translate"}

# TensorFlow's float64 convolutions take about 40 ms for a training image of 8x8 pixels on two cores, and 16 times that
# for one of 32x32. So rungs 4 to 9 work on small images, in small batches.
FIT_SIZE, FORWARD_SIZE = 16, 32  # pixels, at most
FIT_PATCH, FORWARD_PATCH = 4, 16  # pixels of a ViT's patches
BATCH = 8  # images
PIXELS_BYTES = 2**25  # of augmented images that rung 2 compares in each case, over two epochs


def change_config(config: Config, **values: Any) -> Config:
    """A copy of `config` with other values, which are named `section__key`, or `key` for one outside the sections."""
    config = copy.deepcopy(config)
    for name, value in values.items():
        section, _, key = name.partition("__")
        setattr(getattr(config, section), key, value) if key else setattr(config, section, value)
    return config


def find_precision(config: Config) -> str:
    """The precision that the ladder is computed in: fp64 unless the user asks for another."""
    return "fp64" if config.hardware.precision == "auto" else config.hardware.precision


def strip_config(config: Config) -> Config:
    """The user's config without what the ladder cannot compare or does not need.

    Raises:
        UserError: for a GPU, whose rounding errors are larger than the differences that the ladder looks for, and for
            keys that only one sibling honours.
    """
    if config.hardware.accelerator == "gpu":
        raise UserError("parity compares on the CPU, where float64 is at hand; leave hardware.accelerator out")
    for sibling in ("lightning", "keras"):
        require_support(config, sibling)
    base = change_config(
        apply_checkpoint_preprocessing(config), resume="none", debug=DebugConfig(), augment__policy="none",
        model__pretrained="false", model__dropout=0.0, model__stochastic_depth=0.0, hardware__accelerator="cpu",
        hardware__precision=find_precision(config), tracking__mode="disabled", tracking__tensorboard=False,
        tracking__log_every_steps=1, train__early_stopping_patience=0)
    validate_config(base)
    return base


def plan_tasks(config: Config, data: Data, folder: Path, rungs: set[int],
               optimizers: tuple[str, ...] = tuple(OPTIMIZERS), steps: int = MARKS[-1], models: tuple[str, ...] = (),
               losses: tuple[str, ...] = tuple(LOSSES)) -> list[Task]:
    """The tasks of `rungs`, numbers from 1 to 9, for a config from `strip_config` and its data.

    The image files of rung 2 are written to `folder`. A fit takes `steps` training steps, or a few more so that it ends
    with an epoch. `models` are compared on rungs 4 and 5, by default all; `losses` beside the config's own.
    """
    tasks = []
    if 1 in rungs:
        tasks += [Task("raw", "raw", set_epochs(config)),
                  Task("raw-balanced", "raw", change_config(set_epochs(config), dataset__balance="oversample",
                                                      augment__alternating_flip=False))]
    if 2 in rungs:
        tasks += plan_pixels(config, data, folder)
    if 3 in rungs:
        tasks += [Task("start", "start", config), Task("start-airbench", "start", change_config(config, **AIRBENCH))]
    if rungs & {4, 5}:
        tasks += plan_forwards(config, data, models or list_keys()["model.name"].metadata["choices"], losses)
    if rungs & {4, 5, 7, 8, 9}:
        tasks += plan_airbench(config, folder, rungs, steps, models)
    if 6 in rungs:
        for name in list_keys()["schedule.name"].metadata["choices"]:
            tasks.append(Task(f"rates-{name}", "rates", change_config(
                config, schedule__name=name, schedule__initial_factor=0.2, schedule__final_factor=0.1)))
    if rungs & {7, 8, 9}:
        tasks += [plan_fit(config, data, name, min(steps, FIT_STEPS.get(name, steps))) for name in optimizers]
        tasks += [change_loss(plan_fit(config, data, "sgd", steps), "fit", name) for name in losses]
    return tasks


def set_epochs(config: Config, epochs: int = 1) -> Config:
    """A copy of `config` with so many epochs and no warm-up, which could be longer than they are."""
    return change_config(config, train__epochs=epochs, schedule__warmup_epochs=0.0)


def plan_pixels(config: Config, data: Data, folder: Path) -> list[Task]:
    """Two epochs with the augmentation of `config`, with each kind of crop, and with images decoded from files."""
    image_bytes = data.image_size**2 * data.channels * 8
    batches = max(1, PIXELS_BYTES // (2 * image_bytes * max(config.train.batch_size, config.train.eval_batch_size)))
    own = change_config(set_epochs(config, 2), debug__limit_batches=batches)
    pad = {"augment__crop": "pad", "augment__crop_padding": 2, "augment__crop_fill": "reflect", "augment__flip": True,
           "augment__alternating_flip": config.dataset.balance == "none", "augment__mixup_alpha": 0.0,
           "augment__cutmix_alpha": 0.0}
    resized = {"augment__crop": "resized", "augment__crop_fill": "zeros", "augment__flip": True,
               "augment__alternating_flip": False, "augment__mixup_alpha": 0.4, "augment__cutmix_alpha": 1.0}
    pictures = DatasetConfig("image_folder", str(write_pictures(folder / "pictures")), image_size=24, val_fraction=0.25,
                             test_fraction=0.25)
    files = change_config(own, dataset=pictures, train__batch_size=4, train__eval_batch_size=3, debug__limit_batches=0)
    mixed = change_config(own, **resized, dataset__image_size=data.image_size + 3)
    return [Task("pixels-as-configured", "pixels", own),
            Task("pixels-padded", "pixels", change_config(own, **pad)),
            Task("pixels-resized-mixed", "pixels", mixed),
            Task("files-padded", "pixels", change_config(files, **pad)),
            Task("files-resized-mixed", "pixels", change_config(files, **resized, dataset__decode="fast")),
            Task("files-kept", "pixels", change_config(files, **resized, dataset__cache="memory"))]


def shrink_images(config: Config, data: Data, size: int, patch: int) -> Config:
    """A copy of `config` with images of at most `size` pixels, small batches, and label smoothing."""
    smaller = change_config(config, dataset__image_size=min(data.image_size, size), train__label_smoothing=0.1,
                            train__batch_size=min(BATCH, len(data.train)))
    return adapt_to_model(smaller, data, patch)


def adapt_to_model(config: Config, data: Data, patch: int) -> Config:
    """A copy of `config` with the stem that full-size images get and with patches of at most `patch` pixels, where the
    model has a stem or patches."""
    settings = MODELS[config.model.name].settings
    stem = choose_stem(config.model.stem, data.image_size) if "stem" in settings else "auto"
    patch_size = math.gcd(config.dataset.image_size, patch) if "patch_size" in settings else 0
    return change_config(config, model__stem=stem, model__patch_size=patch_size)


def change_loss(task: Task, kind: str, loss: str) -> Task:
    """A task of the given kind, with the config of `task` and one of LOSSES."""
    return Task(f"{kind}-{loss}", kind, change_config(task.config, **LOSSES[loss]))


def plan_forwards(config: Config, data: Data, models: tuple[str, ...], losses: tuple[str, ...]) -> list[Task]:
    """One batch through the config's own model with each of `losses`, and through each of `models`."""
    shrunk = shrink_images(set_epochs(config), data, FORWARD_SIZE, FORWARD_PATCH)
    own = Task("", "forward", change_config(shrunk, init_from=""))
    tasks = [change_loss(own, "forward", name) for name in losses]
    for name in models:
        if name == AIRBENCH["model"].name:  # see plan_airbench
            continue
        for stem in ("small", "large") if name in BOTH_STEMS else ("auto",):
            checkpointing = config.model.gradient_checkpointing and "gradient_checkpointing" in MODELS[name].settings
            named = change_config(set_epochs(config), model__name=name, model__stem=stem, model__patch_size=0,
                                  init_from="", model__gradient_checkpointing=checkpointing)
            variant = shrink_images(named, data, FORWARD_SIZE, FORWARD_PATCH)
            tasks.append(Task(f"forward-{name}{'' if stem == 'auto' else f'-{stem}'}", "forward", variant))
    return tasks


def plan_airbench(config: Config, folder: Path, rungs: set[int], steps: int, models: tuple[str, ...]) -> list[Task]:
    """Airbench with all of its recipe, on noise that is written to `folder`."""
    noise = DatasetConfig("image_folder", str(write_noise(folder / "noise", FIT_SIZE, 3 * steps + BATCH)),
                          image_size=FIT_SIZE, val_fraction=0.2, test_fraction=0.2)
    own, tasks = change_config(set_epochs(config), dataset=noise, train__batch_size=BATCH, **AIRBENCH), []
    data = load_data(own)
    if rungs & {4, 5} and (not models or AIRBENCH["model"].name in models):
        tasks.append(Task("forward-airbench", "forward", shrink_images(own, data, FIT_SIZE, FIT_PATCH)))
    if rungs & {7, 8, 9}:
        tasks.append(replace(plan_fit(own, data, "sgd", steps), name="fit-airbench"))
    return tasks


def plan_fit(config: Config, data: Data, optimizer: str, steps: int) -> Task:
    """A training of two or more short epochs, in which the learning rate rises and falls and a frozen backbone is
    unfrozen after the first epoch."""
    batch = min(BATCH, len(data.train))
    per_epoch = min(-(-steps // 2), len(data.train) // batch)
    epochs = -(-steps // per_epoch)
    # A few images more than the steps need, so that each class has some.
    wanted = math.ceil((per_epoch * batch) * (1 + len(data.val) / len(data.train))) + 2 * len(data.classes)
    limit = min(wanted, config.dataset.limit_train or wanted)
    rate, decay = OPTIMIZERS[optimizer]
    fit = change_config(
        shrink_images(config, data, FIT_SIZE, FIT_PATCH), dataset__limit_train=limit,
        dataset__limit_test=4 * batch + 3, train__epochs=epochs,
        train__unfreeze_epoch=int(config.model.freeze != "none"), train__eval_batch_size=batch + 2,
        train__grad_clip=1.0, debug__limit_batches=per_epoch, optimizer__name=optimizer, optimizer__lr=rate,
        optimizer__weight_decay=decay, schedule__name="cosine", schedule__warmup_epochs=0.5)
    return Task(f"fit-{optimizer}", "fit", fit)
