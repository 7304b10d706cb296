"""Which tasks each rung of the ladder needs, as variants of the user's config."""

import copy
import math
from pathlib import Path
from typing import Any

from shared.batches.data import Data
from shared.config import Config, DatasetConfig, DebugConfig, list_keys, require_support, validate_config
from shared.errors import UserError
from shared.models import MODELS, choose_stem
from shared.parity.pictures import write_pictures
from shared.parity.request import MARKS, Task
from shared.weights.pretrained import apply_checkpoint_preprocessing

RUNGS = {1: "data", 2: "pixels", 3: "start", 4: "logits", 5: "loss and gradients", 6: "learning rate", 7: "steps",
         8: "epoch metrics", 9: "scores"}
STEMS_APART = ("resnet18",)  # the other ResNets have the same stems
OPTIMIZERS = {"sgd": (0.05, 5e-4), "adam": (1e-3, 5e-4), "adamw": (1e-3, 0.05), "lion": (1e-4, 0.5),
              "muon": (1e-3, 0.05)}  # learning rate, weight decay
FIT_STEPS = {"muon": MARKS[1]}  # fewer than of the others, since a step of Muon takes seconds on a CPU in float64

# Losses, class weights and class balance beside plain cross-entropy, each on rungs 5 and 7 to 9.
LOSSES = {"weighted": {"train__class_weights": "balanced"},
          "binary": {"train__loss": "binary_cross_entropy", "train__class_weights": "sqrt"},
          "focal": {"train__loss": "focal", "train__class_weights": "balanced", "dataset__balance": "oversample",
                    "train__metrics": ["top5", "macro_f1"]}}

# Float64 convolutions take TensorFlow about 40 ms a training image of 8x8 pixels on two cores, 16 times that at 32x32.
FIT_SIZE, FORWARD_SIZE = 16, 32  # pixels; larger images are scaled down to this on rungs 4 to 9
FIT_PATCH, FORWARD_PATCH = 4, 16  # pixels; a ViT's patches there, so that most of the work is in few tokens
BATCH = 8  # images, on rungs 4 to 9
PIXELS_BYTES = 2**25  # of augmented images that rung 2 compares of each case, spread over two epochs


def changed(config: Config, **values: Any) -> Config:
    """A copy in which `section__key`, or a key outside the sections, has another value."""
    config = copy.deepcopy(config)
    for name, value in values.items():
        section, _, key = name.partition("__")
        setattr(getattr(config, section), key, value) if key else setattr(config, section, value)
    return config


def precision_of(config: Config) -> str:
    """What rungs are computed in: fp64 unless the user asks for another."""
    return "fp64" if config.hardware.precision == "auto" else config.hardware.precision


def base_of(config: Config) -> Config:
    """The user's config without what cannot be compared or takes part in no rung.

    Raises:
        UserError: for a GPU, whose arithmetic differs by more than what is looked for.
    """
    if config.hardware.accelerator == "gpu":
        raise UserError("parity compares on the CPU, where float64 is at hand; leave hardware.accelerator out")
    for sibling in ("lightning", "keras"):
        require_support(config, sibling)
    base = changed(apply_checkpoint_preprocessing(config), resume="none", debug=DebugConfig(), augment__policy="none",
                   model__pretrained="false", model__dropout=0.0, model__stochastic_depth=0.0,
                   hardware__accelerator="cpu", hardware__precision=precision_of(config),
                   tracking__mode="disabled", tracking__tensorboard=False,
                   tracking__log_every_steps=1, train__early_stopping_patience=0)
    validate_config(base)
    return base


def plan(config: Config, data: Data, folder: Path, rungs: set[int], optimizers: tuple[str, ...] = tuple(OPTIMIZERS),
         steps: int = MARKS[-1], models: tuple[str, ...] = (), losses: tuple[str, ...] = tuple(LOSSES)) -> list[Task]:
    """The tasks of `rungs`, from 1 to 9, for `config` as `base_of` returns it and its data.

    `folder` takes the image files of rung 2. Fits run for `steps` steps, or a few more to end with an epoch. `models`
    are those of rungs 4 and 5, all unless named; `losses` are those beside the config's own.
    """
    tasks = []
    if 1 in rungs:
        tasks += [Task("raw", "raw", one_epoch(config)),
                  Task("raw-balanced", "raw", changed(one_epoch(config), dataset__balance="oversample"))]
    if 2 in rungs:
        tasks += pixel_tasks(config, data, folder)
    if 3 in rungs:
        tasks.append(Task("start", "start", config))
    if rungs & {4, 5}:
        tasks += forward_tasks(config, data, models or list_keys()["model.name"].metadata["choices"], losses)
    if 6 in rungs:
        for name in list_keys()["schedule.name"].metadata["choices"]:
            tasks.append(Task(f"rates-{name}", "rates", changed(config, schedule__name=name)))
    if rungs & {7, 8, 9}:
        tasks += [fit_task(config, data, name, min(steps, FIT_STEPS.get(name, steps))) for name in optimizers]
        tasks += [changed_loss(fit_task(config, data, "sgd", steps), "fit", name) for name in losses]
    return tasks


def one_epoch(config: Config, epochs: int = 1) -> Config:
    return changed(config, train__epochs=epochs, schedule__warmup_epochs=0.0)


def pixel_tasks(config: Config, data: Data, folder: Path) -> list[Task]:
    """Two epochs of the user's own augmentation, of every kind of ours, and of decoded files."""
    image = data.image_size**2 * data.channels * 8
    batches = max(1, PIXELS_BYTES // (2 * image * max(config.train.batch_size, config.train.eval_batch_size)))
    own = changed(one_epoch(config, 2), debug__limit_batches=batches)
    pad = {"augment__crop": "pad", "augment__crop_padding": 2, "augment__flip": True, "augment__mixup_alpha": 0.0,
           "augment__cutmix_alpha": 0.0}
    resized = {"augment__crop": "resized", "augment__flip": True, "augment__mixup_alpha": 0.4,
               "augment__cutmix_alpha": 1.0}
    pictures = DatasetConfig("image_folder", str(write_pictures(folder / "pictures")), image_size=24, val_fraction=0.25,
                             test_fraction=0.25)
    files = changed(own, dataset=pictures, train__batch_size=4, train__eval_batch_size=3, debug__limit_batches=0)
    return [Task("pixels-as-configured", "pixels", own),
            Task("pixels-padded", "pixels", changed(own, **pad)),
            Task("pixels-resized-mixed", "pixels", changed(own, **resized, dataset__image_size=data.image_size + 3)),
            Task("files-padded", "pixels", changed(files, **pad)),
            Task("files-resized-mixed", "pixels", changed(files, **resized))]


def small(config: Config, data: Data, size: int, patch: int) -> Config:
    """`config` with images of at most `size` pixels, and a stem and patches that fit."""
    size = min(data.image_size, size)
    return fit_to_model(changed(config, dataset__image_size=size, train__label_smoothing=0.1,
                                train__batch_size=min(BATCH, len(data.train))), data, patch)


def fit_to_model(config: Config, data: Data, patch: int) -> Config:
    """A stem and patches for images of the config's size, where the model has such."""
    settings = MODELS[config.model.name].settings
    stem = choose_stem(config.model.stem, data.image_size) if "stem" in settings else "auto"
    patch_size = math.gcd(config.dataset.image_size, patch) if "patch_size" in settings else 0
    return changed(config, model__stem=stem, model__patch_size=patch_size)


def changed_loss(task: Task, kind: str, loss: str) -> Task:
    """`task` with one of LOSSES."""
    return Task(f"{kind}-{loss}", kind, changed(task.config, **LOSSES[loss]))


def forward_tasks(config: Config, data: Data, models: tuple[str, ...], losses: tuple[str, ...]) -> list[Task]:
    own = Task("", "forward", changed(small(one_epoch(config), data, FORWARD_SIZE, FORWARD_PATCH), init_from=""))
    tasks = [changed_loss(own, "forward", name) for name in losses]
    for name in models:
        for stem in ("small", "large") if name in STEMS_APART else ("auto",):
            keeps = config.model.gradient_checkpointing and "gradient_checkpointing" in MODELS[name].settings
            named = changed(one_epoch(config), model__name=name, model__stem=stem, model__patch_size=0, init_from="",
                            model__gradient_checkpointing=keeps)
            variant = small(named, data, FORWARD_SIZE, FORWARD_PATCH)
            tasks.append(Task(f"forward-{name}{'' if stem == 'auto' else f'-{stem}'}", "forward", variant))
    return tasks


def fit_task(config: Config, data: Data, optimizer: str, steps: int) -> Task:
    """A short run of two epochs or more in which everything moves that can: the learning rate rises and falls, and what
    is frozen is so for the first epoch."""
    batch = min(BATCH, len(data.train))
    per_epoch = min(-(-steps // 2), len(data.train) // batch)
    epochs = -(-steps // per_epoch)
    # A few images more than the steps need, so that none of the classes is left without any.
    wanted = math.ceil((per_epoch * batch) * (1 + len(data.val) / len(data.train))) + 2 * len(data.classes)
    limit = min(wanted, config.dataset.limit_train or wanted)
    rate, decay = OPTIMIZERS[optimizer]
    fit = changed(small(config, data, FIT_SIZE, FIT_PATCH), dataset__limit_train=limit,
                  dataset__limit_test=4 * batch + 3, train__epochs=epochs,
                  train__unfreeze_epoch=int(config.model.freeze != "none"),
                  train__eval_batch_size=batch + 2, train__grad_clip=1.0,
                  debug__limit_batches=per_epoch, optimizer__name=optimizer, optimizer__lr=rate,
                  optimizer__weight_decay=decay, schedule__name="cosine", schedule__warmup_epochs=0.5)
    return Task(f"fit-{optimizer}", "fit", fit)
