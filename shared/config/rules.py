"""Rules that the values of a config have to keep, alone and together. None needs data or a framework."""

import difflib
import errno
import math
import os
from collections.abc import Iterable
from typing import Any

from shared.config.schema import Config, DatasetConfig, get_value, list_keys
from shared.config.support import require_model_settings
from shared.data.definitions import find_definition, list_datasets, list_variants
from shared.errors import UserError
from shared.models import MODELS, split_library_name

# Which values of the metrics that are offered here are better.
DIRECTIONS = {"accuracy": "max", "loss": "min", "top5": "max", "macro_f1": "max"}


def validate_config(config: Config) -> None:
    """Apply every rule. Raises `UserError` naming the key."""
    validate_values(config)
    for rules in (validate_paths, validate_dataset, validate_augment, validate_model, validate_training,
                  validate_monitor, validate_hardware):
        rules(config)


def validate_values(config: Config) -> None:
    """Each key by itself: its choices and its bounds."""
    for dotted, item in list_keys().items():
        value, facts = get_value(config, dotted), item.metadata
        for word in value if isinstance(value, list) else [value]:
            names_more = str(word).startswith(facts["prefixes"]) and word not in facts["prefixes"]
            if facts["choices"] and word not in facts["choices"] and not names_more:
                choices = (*facts["choices"], *(f"{prefix}NAME" for prefix in facts["prefixes"]))
                raise UserError(f"{dotted}='{word}' is not one of {', '.join(filter(None, choices))}; "
                                f"{suggest(str(word), facts['choices'])}")
        # Written so that NaN fails: every comparison with it is false.
        if ((facts["low"] is not None and not value >= facts["low"])
                or (facts["above"] is not None and not value > facts["above"])
                or (facts["high"] is not None and not value <= facts["high"])):
            raise UserError(f"{dotted}={value} is out of range: {describe_limits(facts)}")


def require(holds: Any, message: str) -> None:
    if not holds:
        raise UserError(message)


def validate_paths(config: Config) -> None:
    for dotted in ("output_dir", "resume", "init_from", "model.pretrained", "dataset.root"):
        path = get_value(config, dotted)
        require(not os.path.expanduser(path).startswith("~"), f"{dotted}='{path}' is in the home of nobody known here")
        require(can_be_path(path), f"{dotted}='{path}' cannot be a path: it is too long, or has a zero byte in it")
    root = config.dataset.root
    require(not root or os.path.isdir(os.path.expanduser(root)),
            f"dataset.root='{root}' is not a folder; name one that exists, or leave it out for the cache")
    require(not os.path.isfile(os.path.expanduser(config.output_dir)),
            f"output_dir='{config.output_dir}' is a file; name a folder, which is made where it does not exist")
    require(config.resume in ("none", "auto") or os.path.isdir(os.path.expanduser(config.resume)),
            f"resume='{config.resume}' is not a folder; name a run folder, or use none or auto")
    require(can_be_path(os.path.join(config.output_dir, config.group)),
            f"experiment='{config.group}' becomes a folder's name and is too long for one, or has a zero byte in it")
    require("/" not in config.experiment and config.experiment not in (".", ".."),
            f"experiment='{config.experiment}' becomes a folder's name and may not contain '/'")


def can_be_path(path: str) -> bool:
    """Whether the system would take `path` for one. There may be nothing there."""
    path = os.path.expanduser(path)
    for name in (path, *path.split(os.sep)):  # of a path in a folder that is not there the system looks at no name
        try:
            os.lstat(name)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return False
        except ValueError:  # a zero byte
            return False
    return True


def validate_dataset(config: Config) -> None:
    dataset = config.dataset
    variants = list_variants(dataset.name)
    require(not variants or dataset.variant in variants,
            f"dataset.variant='{dataset.variant}' is not one of {', '.join(variants)}")
    default = get_value(Config(), "dataset.variant")
    others = [name for name in list_datasets() if list_variants(name)]
    require(variants or dataset.variant == default,
            f"dataset.variant={dataset.variant} is not for dataset.name={dataset.name} but for {', '.join(others)}; "
            "leave it out")
    definition = find_definition(dataset.name, dataset.variant)
    wanted = definition.members[0] if definition.reader and definition.members else \
        "train/<class>/*.jpg or <class>/*.jpg"
    require(not definition.needs_root or dataset.root,
            f"dataset.name={dataset.name} needs dataset.root, the folder that holds {wanted}")
    require(not (definition.hub and dataset.root),
            f"dataset.root={dataset.root} is not for dataset.name={dataset.name}, which is kept in the cache folder; "
            "leave it out, or name a folder that the library datasets loads: dataset.name=hf:/a/folder")
    require(definition.has_files or not dataset.root,
            f"dataset.root={dataset.root} is not for dataset.name={dataset.name}, which needs no files; name the data "
            "set, such as dataset.name=image_folder")
    for name in ("decode", "cache"):
        value = getattr(dataset, name)
        require(value == getattr(DatasetConfig, name) or not definition.reader,
                f"dataset.{name}={value} is not for dataset.name={dataset.name}, whose images are no files; leave it "
                "out")
    require(dataset.cache == "none" or dataset.decode != "fast" or config.augment.crop != "resized",
            f"dataset.cache={dataset.cache} keeps an image in one size, and dataset.decode=fast takes another one for "
            "each area that augment.crop=resized cuts out; set dataset.decode=coarse or exact")
    require(dataset.cache != "memory" or config.hardware.devices == 1,
            "dataset.cache=memory is for hardware.devices=1, since each device's process would keep all images; use "
            "dataset.cache=disk, which they share")
    require(dataset.decode == "exact" or config.model.pretrained.lower() == "false",
            f"dataset.decode={dataset.decode} is not for model.pretrained={config.model.pretrained}, which was trained "
            "with whole pixels; leave it out")
    require(len(dataset.mean) == len(dataset.std) in (0, 1, 3)
            and all(math.isfinite(value) for value in dataset.mean) and all(0 < std < math.inf for std in dataset.std),
            f"dataset.mean={dataset.mean} and dataset.std={dataset.std} need a value for all channels or one for each "
            "of three, and std above 0")
    # A data set without a validation split still trains, but then nothing can say which epoch was the best.
    require(dataset.val_fraction > 0 or definition.may_hold_validation,
            "dataset.val_fraction=0 leaves no images to choose the best epoch by; give it a value such as 0.1")


def validate_augment(config: Config) -> None:
    augment = config.augment
    require(augment.crop == "pad" or augment.crop_fill == "zeros",
            f"augment.crop_fill={augment.crop_fill} is not for augment.crop={augment.crop}, which pads nothing; set "
            "augment.crop=pad or leave it out")
    require(augment.flip or not augment.alternating_flip,
            "augment.alternating_flip=true has nothing to alternate; set augment.flip=true or leave it out")
    require(not (augment.alternating_flip and config.dataset.balance == "oversample"),
            "augment.alternating_flip=true is not for dataset.balance=oversample, which shows an image several times "
            "in an epoch; leave one of them out")


def validate_model(config: Config) -> None:
    model = config.model
    require(not (config.init_from and model.pretrained.lower() != "false"),
            "init_from and model.pretrained both name a starting point; set model.pretrained=false or drop init_from")
    require_model_settings(model)


def validate_training(config: Config) -> None:
    train, optimizer = config.train, config.optimizer
    require(config.schedule.warmup_epochs <= train.epochs,
            f"schedule.warmup_epochs={config.schedule.warmup_epochs:g} is longer than train.epochs={train.epochs}; "
            "lower it")
    require(not (optimizer.name == "sgd" and optimizer.nesterov and optimizer.momentum == 0),
            "optimizer.nesterov=true needs optimizer.momentum above 0; set optimizer.nesterov=false")
    require(optimizer.name != "lion" or optimizer.beta1,
            "optimizer.beta1=0 is not for optimizer.name=lion, whose steps would be signs of single gradients; use a "
            "value such as 0.9")
    require(not train.unfreeze_epoch or config.model.freeze == "backbone",
            f"train.unfreeze_epoch={train.unfreeze_epoch} has nothing to unfreeze; set model.freeze=backbone "
            "or leave it out")
    require(train.batch_size > train.accumulate or not has_batch_norm(config.model.name),
            f"train.batch_size={train.batch_size} in train.accumulate={train.accumulate} parts leaves BatchNorm a "
            "single image; raise train.batch_size or lower train.accumulate")
    gamma = get_value(Config(), "train.focal_gamma")
    require(train.loss == "focal" or train.focal_gamma == gamma,
            f"train.focal_gamma={train.focal_gamma:g} is not for train.loss={train.loss}; set train.loss=focal or "
            "leave it out")
    repeated = [name for name in train.metrics if train.metrics.count(name) > 1]
    require(not repeated, f"train.metrics names {', '.join(dict.fromkeys(repeated))} twice; name each metric once")


def has_batch_norm(name: str) -> bool:
    return split_library_name(name) is not None or MODELS[name].batch_norm


def validate_monitor(config: Config) -> None:
    """`train.monitor` may name a metric of the user's own, so only its direction can be demanded here."""
    train = config.train
    split, _, metric = train.monitor.partition("/")
    offered = [f"val/{name}" for name in DIRECTIONS]
    require(train.monitor and not any(map(str.isspace, train.monitor)), "train.monitor is empty or has spaces in it; "
            f"name a metric such as {offered[0]}")
    require(split != "test", f"train.monitor={train.monitor}: test images must not choose the best epoch; use a val/ "
            "metric")
    is_offered = split in ("train", "val") and metric in DIRECTIONS
    if is_offered and train.monitor_mode:
        require(train.monitor_mode == DIRECTIONS[metric],
                f"train.monitor_mode={train.monitor_mode} contradicts train.monitor={train.monitor}, of which "
                f"{DIRECTIONS[metric]} is better; leave train.monitor_mode out")
    if not train.monitor_mode:
        hint = suggest(train.monitor, offered)
        hint = f"{hint} For" if hint.startswith("did") else "for"
        require(is_offered, f"train.monitor={train.monitor} is none of {', '.join(offered)}; {hint} a metric of your "
                            "own say train.monitor_mode=max or min")
        require(metric in ("accuracy", "loss") or metric in train.metrics,
                f"train.monitor={train.monitor} is not computed; add train.metrics=[{metric}]")


def find_direction(config: Config) -> str:
    """Which values of `train.monitor` are better: max or min."""
    return config.train.monitor_mode or DIRECTIONS[config.train.monitor.partition("/")[2]]


def validate_hardware(config: Config) -> None:
    hardware, train = config.hardware, config.train
    is_fsdp = hardware.strategy == "fsdp"
    require_equal_shares(config, max(1, hardware.devices) * hardware.num_nodes)
    require(not (hardware.strategy == "single" and hardware.devices * hardware.num_nodes != 1),
            "hardware.strategy=single uses one device of one machine; set hardware.devices=1 and hardware.num_nodes=1")
    require(not (is_fsdp and config.model.freeze != "none"),
            "hardware.strategy=fsdp shares out parameters that all train; use data_parallel with model.freeze=backbone")
    require(not (is_fsdp and hardware.accelerator in ("cpu", "tpu")),
            "hardware.strategy=fsdp needs GPUs; use data_parallel")
    require(not (is_fsdp and train.grad_clip),
            f"train.grad_clip={train.grad_clip:g} is not possible with hardware.strategy=fsdp, which no process knows "
            "the whole gradient of; use data_parallel, or set train.grad_clip=0")
    require(not (is_fsdp and hardware.precision == "fp64"),
            "hardware.precision=fp64 is not possible with hardware.strategy=fsdp; use fp32")
    require(not (is_fsdp and train.ema_decay),
            f"train.ema_decay={train.ema_decay:g} needs the whole model on each device; use "
            "hardware.strategy=data_parallel, or leave it out")
    require(hardware.steps_per_execution == 1 or hardware.num_nodes * train.accumulate == 1,
            f"hardware.steps_per_execution={hardware.steps_per_execution} is for one machine and "
            "train.accumulate=1; set it to 1")
    require(hardware.steps_per_execution == 1 or not train.ema_decay,
            f"train.ema_decay={train.ema_decay:g} follows each step, and hardware.steps_per_execution="
            f"{hardware.steps_per_execution} shows only one in so many; set hardware.steps_per_execution=1")
    require(hardware.steps_per_execution == 1 or not train.lookahead_every,
            f"train.lookahead_every={train.lookahead_every} follows each step, and hardware.steps_per_execution="
            f"{hardware.steps_per_execution} shows only one in so many; set hardware.steps_per_execution=1")
    for dotted in ("train.lookahead_every", "optimizer.norm_bias_lr_factor"):
        value = get_value(config, dotted)
        require(not is_fsdp or value == get_value(Config(), dotted),
                f"{dotted}={value:g} needs the whole model on each device; use hardware.strategy=data_parallel, or "
                "leave it out")
    require(not (is_fsdp and config.optimizer.name == "muon"),
            "optimizer.name=muon needs whole matrices, of which hardware.strategy=fsdp leaves a part on each device; "
            "use data_parallel, or another optimizer")
    require(not (hardware.precision == "fp16" and hardware.accelerator == "cpu"),
            "hardware.precision=fp16 needs a GPU; use bf16 or fp32 on a CPU")
    require(not (hardware.precision == "fp64" and config.augment.policy != "none"),
            f"augment.policy={config.augment.policy} works on 8-bit images and would hide what fp64 is for; set it to "
            "none")


def require_equal_shares(config: Config, devices: int) -> None:
    """Raise `UserError` where `devices`, in `train.accumulate` parts, cannot share `train.batch_size` equally."""
    batch, augment, parts = config.train.batch_size, config.augment, devices * config.train.accumulate
    # Mixing blends each image with its neighbour, and both have to be on one device.
    mixes = parts > 1 and (augment.mixup_alpha or augment.cutmix_alpha)
    unit = parts * (2 if mixes else 1)
    if batch % unit:
        sizes = [size for size in (batch // unit * unit, -(-batch // unit) * unit) if size]
        pairs = ", in pairs because of mixup or CutMix" if mixes else ""
        times = f" in train.accumulate={config.train.accumulate} parts" if config.train.accumulate > 1 else ""
        raise UserError(f"train.batch_size={batch} cannot be shared equally by {devices} devices{times}{pairs}; the "
                        f"nearest sizes that can are {' and '.join(map(str, sizes))}")


def describe_limits(facts: dict) -> str:
    """Bounds of a field in words, or an empty string."""
    parts = []
    if facts["above"] is not None:
        parts.append(f"above {facts['above']:.12g}")
    if facts["low"] is not None:
        parts.append(f"at least {facts['low']:.12g}")
    if facts["high"] is not None:
        parts.append(f"at most {facts['high']:.12g}")
    return ", ".join(parts)


def suggest(wrong: str, valid: Iterable[str]) -> str:
    """A hint that names the valid word closest to `wrong`, else the way to see them all."""
    words = list(valid)
    tail = wrong.rpartition(".")[2]
    close = [word for word in words if word.rpartition(".")[2] == tail]
    if len(close) != 1:  # not just a key without its section, or with the wrong one
        close = difflib.get_close_matches(wrong, words, n=1, cutoff=0.5) or close
    return f"did you mean '{close[0]}'?" if close else "see --help"
