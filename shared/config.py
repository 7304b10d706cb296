"""The schema: every key of an experiment with its default, unit and meaning, and how files and command line fill it.

Nothing heavy is imported here, so that `--help` answers at once and a wrong key is told before any framework loads.
"""

import difflib
import math
import os
import sys
from dataclasses import Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from shared.errors import UserError
from shared.hardware import share_evenly

INTERPOLATIONS = ("bilinear", "bicubic")
REPOSITORY = Path(__file__).resolve().parent.parent


def key(default: Any, meaning: str, *, unit: str = "", choices: tuple = (), low: float | None = None,
        high: float | None = None, above: float | None = None) -> Any:
    """A field of the schema. `low` and `high` are inclusive bounds, `above` an exclusive lower one."""
    facts = {"meaning": meaning, "unit": unit, "choices": choices, "low": low, "high": high, "above": above}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=facts)
    return field(default=default, metadata=facts)


@dataclass
class DatasetConfig:
    name: str = key("digits", "which data set", choices=(
        "digits", "fashion_mnist", "cifar10", "cifar100", "imagenette", "imagenet_mini", "image_folder"))
    root: str = key("", "folder with the files; empty: a cache folder, filled by download where the data set allows it")
    variant: str = key("160", "which size of imagenette", choices=("160", "320", "full"), unit="pixels")
    image_size: int = key(0, "height and width the model sees; 0: the stored size, 224 for folders", unit="pixels",
                          low=0, high=2048)
    center_crop: float = key(1.0, "share of the shorter side that the central square keeps where no random area is cut "
                             "out, so in evaluation", above=0.0, high=1.0)
    interpolation: str = key("bilinear", "how images are scaled, always antialiased; a pretrained checkpoint sets its "
                             "own, as of center_crop, mean and std", choices=INTERPOLATIONS)
    mean: list[float] = key([], "of the pixels of each channel, scaled to 0..1; empty: the data set's")
    std: list[float] = key([], "their standard deviation; empty: the data set's")
    val_fraction: float = key(0.1, "share of the training images held out for validation, stratified by class; not "
                              "used where an image folder has train, val and test", low=0.0, high=0.9)
    test_fraction: float = key(0.1, "share held out for testing where an image folder has no test or val folder",
                               low=0.0, high=0.9)
    limit_train: int = key(0, "use only so many training images, stratified, before validation is split off; 0: all",
                           unit="images", low=0)
    limit_test: int = key(0, "use only so many test images, stratified; 0: all", unit="images", low=0)
    on_bad_image: str = key("stop", "an unreadable image file stops the run, or is skipped and counted",
                            choices=("stop", "skip"))


@dataclass
class AugmentConfig:
    crop: str = key("pad", "random crop: none, a window of the zero-padded image, or a resized random area",
                    choices=("none", "pad", "resized"))
    crop_padding: int = key(1, "zeros on each side before the window is cut (crop=pad)", unit="pixels", low=0, high=256)
    min_area: float = key(0.08, "smallest area of a resized crop, as a share of the image (crop=resized)", above=0.0,
                          high=1.0)
    max_aspect: float = key(4 / 3, "largest aspect ratio of a resized crop; the smallest is its inverse", low=1.0,
                            high=10.0)
    flip: bool = key(False, "mirror left and right with probability 1/2")
    mixup_alpha: float = key(0.0, "mixup with lambda from Beta(alpha, alpha) (arXiv:1710.09412); 0: off", low=0.0,
                             high=100.0)
    cutmix_alpha: float = key(0.0, "CutMix with lambda from Beta(alpha, alpha) (arXiv:1905.04899); 0: off. With "
                              "mixup too, each image takes one of the two at even odds", low=0.0, high=100.0)
    mix_probability: float = key(1.0, "share of images that mixup and CutMix touch", low=0.0, high=1.0)
    policy: str = key("none", "a library's policy on top: torchvision's in Lightning, keras-cv's in Keras. The same "
                      "kind, not the same draws, so that runs that use one are comparable in distribution only",
                      choices=("none", "randaugment", "augmix", "random_erasing"))
    policy_magnitude: float = key(0.3, "strength of randaugment and augmix, largest erased area of random_erasing",
                                  low=0.0, high=1.0)


@dataclass
class ModelConfig:
    name: str = key("resnet18", "architecture; python -m shared.models tells about each", choices=(
        "resnet18", "resnet34", "resnet50", "efficientnet_b0", "efficientnet_b3", "vit_tiny", "vit_small", "vit_base"))
    pretrained: str = key("false", "false: initial weights; true: the published checkpoint, by way of the Hugging Face "
                          "hub's cache; or a folder or .safetensors file in timm's format. Its preprocessing applies")
    freeze: str = key("none", "backbone: nothing but the head trains, and BatchNorm's statistics stay too; until "
                      "train.unfreeze_epoch", choices=("none", "backbone"))
    stem: str = key("auto", "first layers of a ResNet: 3x3 stride 1 (small) or 7x7 stride 2 and pooling (large); auto: "
                    "small up to 64 pixels", choices=("auto", "small", "large"))
    patch_size: int = key(0, "side of a ViT's patches; 0: 4 up to images of 64 pixels, else 16", unit="pixels", low=0,
                          high=256)
    dropout: float = key(0.0, "share of the features that the head misses in training. Like stochastic_depth drawn by "
                         "each framework itself, so that such runs are comparable in distribution only", low=0.0,
                         high=0.99)
    stochastic_depth: float = key(0.0, "probability with which the last block's branch is left out for an image in "
                                  "training, falling to 0 at the first block (arXiv:1603.09382)", low=0.0, high=0.99)
    gradient_checkpointing: bool = key(False, "keep no activations within a ViT's blocks and compute them again in the "
                                       "backward pass (arXiv:1604.06174): less memory, more time, the same numbers")


@dataclass
class OptimizerConfig:
    name: str = key("sgd", "update rule, PyTorch's formula in both siblings",
                    choices=("sgd", "adam", "adamw", "lion", "muon"))
    lr: float = key(0.02, "peak learning rate", above=0.0, high=100.0)
    backbone_lr_factor: float = key(1.0, "learning rate of all but the head, as a share of the head's", above=0.0,
                                    high=100.0)
    momentum: float = key(0.9, "momentum of sgd", low=0.0, high=0.9999)
    nesterov: bool = key(True, "Nesterov's momentum in sgd")
    weight_decay: float = key(5e-4, "sgd and adam: g += decay * w before the update; adamw: w -= lr * decay * w",
                              low=0.0, high=10.0)
    decay_norm_and_bias: bool = key(False, "decay normalisation parameters and biases too")
    beta1: float = key(0.9, "decay of the mean of gradients in adam and adamw", low=0.0, high=0.9999)
    beta2: float = key(0.999, "decay of the mean of squared gradients in adam and adamw", low=0.0, high=0.999999)
    eps: float = key(1e-8, "added to the root of the second moment, after bias correction, in adam and adamw",
                     above=0.0, high=1.0)


@dataclass
class ScheduleConfig:
    name: str = key("cosine", "learning rate over time", choices=("constant", "step", "cosine"))
    warmup_epochs: float = key(1.0, "linear rise from 0 to the peak, counted within train.epochs", unit="epochs",
                               low=0.0)
    step_epochs: int = key(5, "epochs between two drops (schedule=step)", unit="epochs", low=1, high=1_000_000)
    step_factor: float = key(0.1, "what a drop multiplies the learning rate by (schedule=step)", above=0.0, high=1.0)
    final_factor: float = key(0.0, "where cosine ends, as a share of the peak", low=0.0, high=1.0)


@dataclass
class TrainConfig:
    epochs: int = key(10, "passes over the training images", unit="epochs", low=1, high=1_000_000)
    batch_size: int = key(64, "global batch of a training step; the last partial batch of an epoch is left out",
                          unit="images", low=1)
    accumulate: int = key(1, "split each batch into so many parts, one after the other, to fit into memory; gradients "
                          "are averaged, so that only BatchNorm notices, which sees a part at a time", low=1, high=4096)
    eval_batch_size: int = key(256, "batch of validation and test; the last partial batch counts", unit="images", low=1)
    label_smoothing: float = key(0.0, "share of the target spread evenly over all classes, in training only", low=0.0,
                                 high=0.999)
    grad_clip: float = key(0.0, "largest global L2 norm of the gradient; 0: no clipping", low=0.0,
                            high=1e9)
    ema_decay: float = key(0.0, "validate, test and keep as the best a moving average of the weights, BatchNorm's "
                           "statistics too, which keeps this share of itself at each step, less in the first ones; "
                           "0: the weights themselves", low=0.0, high=0.999999)
    unfreeze_epoch: int = key(0, "train all from this epoch on, counted from 0, where model.freeze=backbone; 0: never",
                              unit="epochs", low=0)
    checkpoint_every_steps: int = key(0, "checkpoint so often within an epoch too, beside the one at its end; 0: never",
                                      unit="steps", low=0)
    monitor: str = key("val/accuracy", "what makes an epoch the best one",
                       choices=("val/accuracy", "val/loss"))
    early_stopping_patience: int = key(0, "stop after so many epochs without a better one; 0: never", unit="epochs",
                                       low=0)


@dataclass
class HardwareConfig:
    accelerator: str = key("auto", "where to compute; auto: a TPU or a GPU where there is one",
                           choices=("auto", "cpu", "gpu", "tpu"))
    devices: int = key(1, "how many of them on each machine; 0: all there are. A CPU counts as many times as asked",
                       low=0, high=1024)
    num_nodes: int = key(1, "how many machines; several need a launcher, see configs/launchers", low=1, high=10_000)
    strategy: str = key("auto", "how the devices share the work. data_parallel: each holds the model and takes its "
                        "share of the batch (DDP in Lightning; Mirrored, MultiWorkerMirrored or TPU strategy in "
                        "Keras); fsdp: the model is shared out too (Lightning on GPUs); auto: data_parallel where "
                        "there are several",
                        choices=("auto", "single", "data_parallel", "fsdp"))
    sync_batchnorm: bool = key(True, "BatchNorm sees the whole global batch; false: each device its own share, which "
                               "is another experiment on another number of devices")
    steps_per_execution: int = key(1, "Keras: training steps per call out of Python, faster where a step is short; "
                                   "Lightning has no such thing", unit="steps", low=1, high=10_000)
    precision: str = key("auto", "arithmetic of the layers; auto: bf16 where the hardware has it, else fp32. Weights "
                         "stay fp32 under bf16 and fp16", choices=("auto", "fp32", "bf16", "fp16", "fp64"))
    workers: int = key(-1, "parallel readers of the training images; -1: as many as pay on this machine", low=-1,
                       high=256)
    threads: int = key(0, "CPU threads of one operation; 0: the framework decides", low=0, high=1024)
    compile: bool = key(False, "torch.compile in Lightning, XLA in Keras; costs tens of seconds at the start")


@dataclass
class TrackingConfig:
    mode: str = key("auto", "Weights & Biases; auto: online where an API key is configured, else offline",
                    choices=("auto", "online", "offline", "disabled"))
    project: str = key("lightning-keras-template", "project in Weights & Biases")
    tags: list[str] = key([], "further tags in Weights & Biases, beside the sibling's name")
    log_every_steps: int = key(50, "training steps between two logged steps", unit="steps", low=1)
    tensorboard: bool = key(False, "write TensorBoard files into the run folder too")


@dataclass
class DebugConfig:
    overfit_batches: int = key(0, "train on so many fixed batches again and again, without augmentation; 0: off",
                               unit="batches", low=0)
    limit_batches: int = key(0, "end each epoch and each evaluation after so many batches; 0: off", unit="batches",
                             low=0)
    detect_anomaly: bool = key(False, "let the framework name the operation that made the first NaN; slow")
    deterministic: bool = key(False, "refuse operations whose result may differ from run to run")
    profile: bool = key(False, "write a profile of the second epoch's steps into the run folder")


@dataclass
class Config:
    experiment: str = key("", "name that groups the runs to compare; empty: <dataset>_<model>")
    seed: int = key(0, "source of every random draw", low=0, high=2**31 - 1)
    output_dir: str = key("runs", "where run folders are made; relative to where the command is run")
    resume: str = key("none", "none: a new run; auto: go on with the newest unfinished run of this experiment and "
                      "sibling; or a run folder to go on with")
    init_from: str = key("", "start from the weights of a run folder or .safetensors file of either sibling")
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    debug: DebugConfig = field(default_factory=DebugConfig)

    @property
    def group(self) -> str:
        return self.experiment or f"{self.dataset.name}_{self.model.name}"


def schema(section: Any = Config, prefix: str = "") -> dict[str, Any]:
    """`{dotted key: dataclass field}` of the whole schema, in the order in which it is written."""
    found = {}
    for item in fields(section):
        if is_dataclass(item.type):
            found |= schema(item.type, f"{prefix}{item.name}.")
        else:
            found[prefix + item.name] = item
    return found


def value_at(config: Config, dotted: str) -> Any:
    for part in dotted.split("."):
        config = getattr(config, part)
    return config


def usage(command: str, purpose: str) -> str:
    """The text of `--help`."""
    lines = [purpose, "", f"usage: {command} [file.yaml ...] [key=value ...]", "",
             "Files are merged from left to right, then the keys. Without a file, configs/quickstart.yaml is taken;",
             "with resume=RUN_FOLDER, the config of that run.",
             "  --help          this text", "  --print-config  print the resolved config and stop", ""]
    defaults = Config()
    section = None
    for dotted, item in schema().items():
        head = dotted.rpartition(".")[0]
        if head != section:
            lines += ["", f"{head or 'run'}:"]
            section = head
        facts = item.metadata
        default = value_at(defaults, dotted)
        default = str(default).lower() if isinstance(default, bool) else "''" if default == "" else default
        allowed = " | ".join(map(str, facts["choices"])) or limits(facts)
        lines.append(f"  {dotted}={default}  ({', '.join(filter(None, (type_name(item), facts['unit'], allowed)))})")
        lines.append(f"      {facts['meaning']}")
    return "\n".join(lines)


def type_name(item: Field) -> str:
    if get_origin(item.type) is list:
        return f"list of {get_args(item.type)[0].__name__}"
    return item.type.__name__


def limits(facts: dict) -> str:
    """Bounds of a field in words, or an empty string."""
    parts = []
    if facts["above"] is not None:
        parts.append(f"above {facts['above']:.12g}")
    if facts["low"] is not None:
        parts.append(f"at least {facts['low']:.12g}")
    if facts["high"] is not None:
        parts.append(f"at most {facts['high']:.12g}")
    return ", ".join(parts)


def nearest(wrong: str, valid: list[str] | tuple[str, ...]) -> str:
    """A hint that names the valid word closest to `wrong`, else the way to see them all."""
    tail = wrong.rpartition(".")[2]
    close = [word for word in valid if word.rpartition(".")[2] == tail]
    if len(close) != 1:  # not just a key without its section, or with the wrong one
        close = difflib.get_close_matches(wrong, valid, n=1, cutoff=0.5) or close
    return f"did you mean '{close[0]}'?" if close else "see --help"


def find_file(name: str) -> Path:
    """A YAML file relative to the working folder or, failing that, to the repository. Raises `UserError`."""
    for folder in (Path.cwd(), REPOSITORY):
        try:
            if (folder / name).is_file():
                return folder / name
        except OSError as error:  # a folder that may not be looked into, a name that is too long
            raise UserError(f"config file '{name}' cannot be read: {error.strerror}") from None
    presets = [str(path.relative_to(REPOSITORY)) for path in sorted((REPOSITORY / "configs").rglob("*.yaml"))]
    raise UserError(f"config file '{name}' does not exist; {nearest(name, presets)}")


def flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as `{dotted key: value}`."""
    found = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def build(sources: list[tuple[str, Any]]) -> Config:
    """Merge OmegaConf trees, each with the name of where it comes from, over the schema. Raises `UserError`."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException, ValidationError

    known = schema()
    merged = OmegaConf.structured(Config)
    for origin, tree in sources:
        try:
            given = flat(OmegaConf.to_container(tree, resolve=True))
        except OmegaConfBaseException as error:
            raise UserError(f"{origin}: {str(error).splitlines()[0]}") from None
        for dotted, value in given.items():
            if dotted not in known:
                sections = {name.rpartition(".")[0] for name in known} - {""}
                if dotted in sections:
                    raise UserError(f"{origin}: '{dotted}' is a section, not a value; set one of its keys, such as "
                                    f"'{next(name for name in known if name.startswith(dotted + '.'))}'")
                raise UserError(f"{origin}: unknown key '{dotted}'; {nearest(dotted, list(known))}")
            if value is None or value == "???":  # OmegaConf's word for a missing value
                raise UserError(f"{origin}: '{dotted}' has no value; give one, or leave the key out for its default")
            try:
                if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
                    raise ValidationError  # OmegaConf would take it, and fail when all is put together
                OmegaConf.update(merged, dotted, value)
            except OmegaConfBaseException as error:
                raise UserError(f"{origin}: {dotted}={value!r} is not of type {type_name(known[dotted])}") from error
    config = OmegaConf.to_object(merged)
    check(config)
    return config


def check(config: Config) -> None:
    """Every rule that needs no data and no framework. Raises `UserError` naming the key."""
    for dotted, item in schema().items():
        value, facts = value_at(config, dotted), item.metadata
        if facts["choices"] and value not in facts["choices"]:
            raise UserError(f"{dotted}='{value}' is not one of {', '.join(facts['choices'])}; "
                            f"{nearest(str(value), facts['choices'])}")
        # Written so that NaN fails: every comparison with it is false.
        if ((facts["low"] is not None and not value >= facts["low"])
                or (facts["above"] is not None and not value > facts["above"])
                or (facts["high"] is not None and not value <= facts["high"])):
            raise UserError(f"{dotted}={value} is out of range: {limits(facts)}")

    def rule(holds: bool, message: str) -> None:
        if not holds:
            raise UserError(message)

    dataset, augment, schedule, train = config.dataset, config.augment, config.schedule, config.train
    rule(schedule.warmup_epochs <= train.epochs,
         f"schedule.warmup_epochs={schedule.warmup_epochs:g} is longer than train.epochs={train.epochs}; lower it")
    rule(not (config.optimizer.name == "sgd" and config.optimizer.nesterov and config.optimizer.momentum == 0),
         "optimizer.nesterov=true needs optimizer.momentum above 0; set optimizer.nesterov=false")
    rule(dataset.name not in ("image_folder", "imagenet_mini") or dataset.root != "",
         f"dataset.name={dataset.name} needs dataset.root, the folder that holds train/<class>/*.jpg or <class>/*.jpg")
    rule(dataset.name != "digits" or dataset.root == "",
         f"dataset.root={dataset.root} is not for dataset.name=digits, which scikit-learn brings along; name the data "
         "set, such as dataset.name=image_folder")
    rule(len(dataset.mean) == len(dataset.std) in (0, 1, 3)
         and all(math.isfinite(value) for value in dataset.mean) and all(0 < std < math.inf for std in dataset.std),
         f"dataset.mean={dataset.mean} and dataset.std={dataset.std} need a value for all channels or one for each of "
         "three, and std above 0")
    rule(not train.unfreeze_epoch or config.model.freeze == "backbone",
         f"train.unfreeze_epoch={train.unfreeze_epoch} has nothing to unfreeze; set model.freeze=backbone "
         "or leave it out")
    rule(not (config.hardware.strategy == "fsdp" and config.model.freeze != "none"),
         "hardware.strategy=fsdp shares out parameters that all train; use data_parallel with model.freeze=backbone")
    rule(not config.model.gradient_checkpointing or config.model.name.startswith("vit_"),
         f"model.gradient_checkpointing=true is for vit_* alone: {config.model.name} has BatchNorm, whose statistics a "
         "repeated forward pass would update twice; set it to false")
    rule(not (config.init_from and config.model.pretrained.lower() != "false"),
         "init_from and model.pretrained both name a starting point; set model.pretrained=false or drop init_from")
    for dotted in ("output_dir", "resume", "init_from", "model.pretrained", "dataset.root"):
        path = value_at(config, dotted)
        rule(not os.path.expanduser(path).startswith("~"), f"{dotted}='{path}' is in the home of nobody known here")
    rule(not dataset.root or Path(dataset.root).expanduser().is_dir(),
         f"dataset.root='{dataset.root}' is not a folder; name one that exists, or leave it out for the cache")
    rule(not Path(config.output_dir).expanduser().is_file(),
         f"output_dir='{config.output_dir}' is a file; name a folder, which is made where it does not exist")
    rule(config.resume in ("none", "auto") or Path(config.resume).expanduser().is_dir(),
         f"resume='{config.resume}' is not a folder; name a run folder, or use none or auto")
    # A data set without a validation split still trains, but then nothing can say which epoch was the best.
    rule(dataset.val_fraction > 0 or dataset.name in ("image_folder", "imagenet_mini"),
         "dataset.val_fraction=0 leaves no images to choose the best epoch by; give it a value such as 0.1")
    share_evenly(config, max(1, config.hardware.devices) * config.hardware.num_nodes)
    rule(not (config.hardware.strategy == "single" and config.hardware.devices * config.hardware.num_nodes != 1),
         "hardware.strategy=single uses one device of one machine; set hardware.devices=1 and hardware.num_nodes=1")
    rule(not (config.hardware.strategy == "fsdp" and config.hardware.accelerator in ("cpu", "tpu")),
         "hardware.strategy=fsdp needs GPUs; use data_parallel")
    rule(not (config.hardware.strategy == "fsdp" and train.grad_clip),
         f"train.grad_clip={train.grad_clip:g} is not possible with hardware.strategy=fsdp, which no process knows the "
         "whole gradient of; use data_parallel, or set train.grad_clip=0")
    rule(not (config.hardware.strategy == "fsdp" and config.hardware.precision == "fp64"),
         "hardware.precision=fp64 is not possible with hardware.strategy=fsdp; use fp32")
    rule(config.hardware.steps_per_execution == 1 or config.hardware.num_nodes * train.accumulate == 1,
         f"hardware.steps_per_execution={config.hardware.steps_per_execution} is for one machine and "
         "train.accumulate=1; set it to 1")
    rule(train.batch_size > train.accumulate or config.model.name.startswith("vit_"),
         f"train.batch_size={train.batch_size} in train.accumulate={train.accumulate} parts leaves BatchNorm a single "
         "image; raise train.batch_size or lower train.accumulate")
    rule(not (config.hardware.strategy == "fsdp" and train.ema_decay),
         f"train.ema_decay={train.ema_decay:g} needs the whole model on each device; use "
         "hardware.strategy=data_parallel, or leave it out")
    rule(not (config.hardware.precision == "fp16" and config.hardware.accelerator == "cpu"),
         "hardware.precision=fp16 needs a GPU; use bf16 or fp32 on a CPU")
    rule(not (config.hardware.precision == "fp64" and augment.policy != "none"),
         f"augment.policy={augment.policy} works on 8-bit images and would hide what fp64 is for; set it to none")
    rule("/" not in config.experiment and config.experiment not in (".", ".."),
         f"experiment='{config.experiment}' becomes a folder's name and may not contain '/'")


def parse(arguments: list[str], command: str, purpose: str) -> Config:
    """The config that a command line asks for.

    `--help` and `--print-config` print and leave with status 0.

    Raises:
        UserError: for a missing file, an unknown key, a value of the wrong type, out of range or in contradiction.
    """
    if "--help" in arguments or "-h" in arguments:
        print(usage(command, purpose))
        sys.exit(0)

    flags = [word for word in arguments if word.startswith("-")]
    words = [word for word in arguments if not word.startswith("-")]
    if unknown := [flag for flag in flags if flag != "--print-config"]:
        raise UserError(f"unknown option '{unknown[0]}'; options are --help and --print-config, keys are key=value")
    files = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    config = build([(name, read_yaml(find_file(name))) for name in files or [base_file(overrides)]]
                   + [("command line", override(word)) for word in overrides])
    if "--print-config" in flags:
        print(to_yaml(config), end="")
        sys.exit(0)
    return config


def base_file(overrides: list[str]) -> str:
    """The file to start from where none is named: that of the run to resume, else the quick start."""
    for word in overrides:
        name, _, value = word.partition("=")
        if name == "resume" and Path(value).expanduser().joinpath("config.yaml").is_file():
            return str(Path(value).expanduser() / "config.yaml")
    return "configs/quickstart.yaml"


def override(word: str) -> Any:
    """One `key=value` of the command line as an OmegaConf tree."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        return OmegaConf.from_dotlist([word])
    except (YAMLError, OmegaConfBaseException):
        raise UserError(f"command line: '{word}' cannot be read as key=value; quote the value") from None


def read_yaml(path: Path) -> Any:
    """A YAML file as an OmegaConf tree. Raises `UserError` naming the line where it is not valid YAML."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        tree = OmegaConf.load(path)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path}: not valid YAML{f' in line {mark.line + 1}' if mark else ''}: "
                        f"{getattr(error, 'problem', None) or error}") from None
    except (OSError, UnicodeDecodeError, OmegaConfBaseException) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be read: {reason}") from None
    if not OmegaConf.is_dict(tree):
        raise UserError(f"{path}: holds a list or a single value; expected keys such as 'train:' with values under it")
    return tree


def to_yaml(config: Config) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(config))


def to_dict(config: Config) -> dict[str, Any]:
    """The config as nested plain dictionaries, for W&B and JSON."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.structured(config))


def load(path: Path) -> Config:
    """A config that a run folder keeps. Raises `UserError`."""
    return build([(str(path), read_yaml(path))])
