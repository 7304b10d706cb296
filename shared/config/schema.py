"""The schema: every key of an experiment with its default, unit, meaning and the siblings that honour it."""

import re
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any, get_args, get_origin

from shared.config.key import key
from shared.config.tables import find_single_owners, read_table
from shared.data.definition import INTERPOLATIONS
from shared.data.definitions import list_datasets, list_variants
from shared.data.hub import PREFIX
from shared.data.views import VIEWS
from shared.models import LIBRARIES, MODELS

OPTIMIZERS = read_table("optim.py", "OPTIMIZERS")


@dataclass
class DatasetConfig:
    name: str = key("digits", "which data set. hf:owner/name is one of the Hugging Face hub, hf:/a/folder one that its "
                    "library loads from there; @CONFIG chooses one of its configurations, #COLUMN the column of the "
                    "classes", choices=list_datasets(), prefixes=(PREFIX,))
    root: str = key("", "folder with the files; empty: a cache folder, filled by download where the data set allows it")
    variant: str = key("160", "which form of a data set that has several: of imagenette the shorter side, in pixels",
                       choices=list_variants())
    image_size: int = key(0, "height and width the model sees; 0: the stored size, 224 for folders", unit="pixels",
                          low=0, high=2048)
    center_crop: float = key(1.0, "share of the shorter side that the central square keeps where no random area is cut "
                             "out, so in evaluation", above=0.0, high=1.0)
    interpolation: str = key("bilinear", "how images are scaled, always antialiased; a pretrained checkpoint sets its "
                             "own, as of center_crop, mean and std", choices=INTERPOLATIONS)
    decode: str = key("exact", "how JPEGs are read for training: exact, or at 1/2, 1/4 or 1/8 of their size, where the "
                      "part that is cut out (fast) or the whole image (coarse) still has twice the pixels that are "
                      "needed along each side. Validation, test and prediction are always exact",
                      choices=("exact", "fast", "coarse"))
    cache: str = key("none", "keep what image files are decoded to, so that each is decoded once: in memory, or on "
                     "disk, in a file in the cache folder that all runs and both siblings share", speed=True,
                     choices=("none", "memory", "disk"))
    mean: list[float] = key([], "of the pixels of each channel, scaled to 0..1; empty: the data set's")
    std: list[float] = key([], "their standard deviation; empty: the data set's")
    val_fraction: float = key(0.1, "share of the training images held out for validation, stratified by class; not "
                              "used where an image folder has train, val and test", low=0.0, high=0.9)
    test_fraction: float = key(0.1, "share held out for testing where an image folder has no test or val folder",
                               low=0.0, high=0.9)
    limit_train: int = key(0, "use only so many training images, stratified, before validation is split off; 0: all",
                           unit="images", low=0)
    limit_test: int = key(0, "use only so many test images, stratified; 0: all", unit="images", low=0)
    balance: str = key("none", "oversample: each epoch shows every class equally often, in as many images as without "
                       "it: another random part of a large class each time, and the images of a small one repeatedly, "
                       "each time augmented anew", choices=("none", "oversample"))
    on_bad_image: str = key("stop", "an unreadable image file stops the run, or is skipped and counted",
                            choices=("stop", "skip"))
    on_duplicate: str = key("warn", "images that are the same, byte for byte, in two of the parts train, val and test "
                            "are told; or are left out of train, and of val where test has them; or stop the run",
                            choices=("warn", "drop", "stop"))


@dataclass
class AugmentConfig:
    crop: str = key("pad", "random crop: none, a window of the padded image, or a resized random area",
                    choices=("none", "pad", "resized"))
    crop_padding: int = key(1, "border on each side before the window is cut (crop=pad)", unit="pixels", low=0,
                            high=256)
    crop_fill: str = key("zeros", "what that border holds: zeros, or the image mirrored at its edge",
                         choices=("zeros", "reflect"))
    min_area: float = key(0.08, "smallest area of a resized crop, as a share of the image (crop=resized)", above=0.0,
                          high=1.0)
    max_aspect: float = key(4 / 3, "largest aspect ratio of a resized crop; the smallest is its inverse", low=1.0,
                            high=10.0)
    flip: bool = key(False, "mirror left and right with probability 1/2")
    alternating_flip: bool = key(False, "mirror an image in every second epoch, one half of them in the first, so that "
                                 "two epochs in a row show each from both sides (arXiv:2404.00498)")
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
    name: str = key("resnet18", "architecture; python -m shared.models tells about each. timm:NAME is any model of "
                    "timm, keras:NAME any of keras.applications", choices=tuple(MODELS),
                    prefixes=tuple(f"{library}:" for library in LIBRARIES),
                    only_choices={f"{library}:": sibling for library, sibling in LIBRARIES.items()})
    pretrained: str = key("false", "false: initial weights; true: the published checkpoint, by way of the Hugging Face "
                          "hub's cache; or a folder or .safetensors file in timm's format. Its preprocessing applies. "
                          "Of keras:NAME Keras' own download, or a .keras, .h5 or .safetensors file")
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
    name: str = key("sgd", "update rule, one formula in both siblings. sgd, adam, adamw: PyTorch's. lion: "
                    "arXiv:2302.06675, which takes 3 to 10 times less learning rate than adamw and as much more decay. "
                    "muon: kellerjordan.github.io/posts/muon for matrices and convolution kernels between the first "
                    "layer and the head, its steps scaled to the size of adamw's (arXiv:2502.16982), and adamw for all "
                    "else, at the same learning rate and decay",
                    choices=tuple(OPTIMIZERS), only_choices=find_single_owners(OPTIMIZERS))
    lr: float = key(0.02, "peak learning rate", above=0.0, high=100.0)
    backbone_lr_factor: float = key(1.0, "learning rate of all but the head, as a share of the head's", above=0.0,
                                    high=100.0)
    norm_bias_lr_factor: float = key(1.0, "learning rate of the biases of normalisation layers, as a share of their "
                                     "layer's. Their weight decay is divided by it, so that a step decays them as "
                                     "without it (arXiv:2404.00498)", above=0.0, high=1000.0)
    momentum: float = key(0.9, "momentum of sgd, and of muon, whose author takes 0.95", low=0.0, high=0.9999)
    nesterov: bool = key(True, "Nesterov's momentum in sgd and muon")
    weight_decay: float = key(5e-4, "sgd and adam: g += decay * w before the update; adamw, lion and muon: w -= lr * "
                              "decay * w", low=0.0, high=10.0)
    decay_norm_and_bias: bool = key(False, "decay normalisation parameters and biases too")
    beta1: float = key(0.9, "decay of the mean of gradients in adam and adamw; in lion the share that the mean has in "
                       "the direction of a step", low=0.0, high=0.9999)
    beta2: float = key(0.999, "decay of the mean of squared gradients in adam and adamw; in lion that of the mean of "
                       "gradients, for which its authors take 0.99", low=0.0, high=0.999999)
    eps: float = key(1e-8, "added to the root of the second moment, after bias correction, in adam and adamw",
                     above=0.0, high=1.0)


@dataclass
class ScheduleConfig:
    name: str = key("cosine", "learning rate over time, after the warm-up; triangular falls on a straight line",
                    choices=("constant", "step", "cosine", "triangular"))
    warmup_epochs: float = key(1.0, "linear rise to the peak, counted within train.epochs", unit="epochs", low=0.0)
    initial_factor: float = key(0.0, "where the warm-up starts from, as a share of the peak", low=0.0, high=1.0)
    step_epochs: int = key(5, "epochs between two drops (schedule=step)", unit="epochs", low=1, high=1_000_000)
    step_factor: float = key(0.1, "what a drop multiplies the learning rate by (schedule=step)", above=0.0, high=1.0)
    final_factor: float = key(0.0, "where cosine and triangular end, as a share of the peak", low=0.0, high=1.0)


@dataclass
class TrainConfig:
    epochs: int = key(10, "passes over the training images", unit="epochs", low=1, high=1_000_000)
    batch_size: int = key(64, "global batch of a training step; the last partial batch of an epoch is left out",
                          unit="images", low=1)
    accumulate: int = key(1, "split each batch into so many parts, one after the other, to fit into memory; gradients "
                          "are averaged, so that only BatchNorm notices, which sees a part at a time", low=1, high=4096)
    eval_batch_size: int = key(256, "batch of validation and test; the last partial batch counts", unit="images", low=1)
    loss: str = key("cross_entropy", "what is minimised. binary_cross_entropy: each class is a yes-or-no question of "
                    "its own, averaged over classes, as for timm's A1 checkpoints (arXiv:2110.00476); focal: "
                    "cross-entropy times (1 - p)^gamma, so that easy images count less (arXiv:1708.02002)",
                    choices=("cross_entropy", "binary_cross_entropy", "focal"))
    focal_gamma: float = key(2.0, "gamma of the focal loss", low=0.0, high=100.0)
    class_weights: str = key("none", "multiply the part of the loss that a class has. balanced: by images / (classes x "
                             "images of the class); sqrt: by the root of that, scaled so that training images weigh 1 "
                             "on average", choices=("none", "balanced", "sqrt"))
    metrics: list[str] = key([], "further metrics beside loss and accuracy: top5, the share of images whose class is "
                             "among the five largest logits; macro_f1, the mean of the classes' F1 scores",
                             choices=("top5", "macro_f1"))
    label_smoothing: float = key(0.0, "share of the target spread evenly over all classes, in training only", low=0.0,
                                 high=0.999)
    grad_clip: float = key(0.0, "largest global L2 norm of the gradient; 0: no clipping", low=0.0,
                            high=1e9)
    ema_decay: float = key(0.0, "validate, test and keep as the best a moving average of the weights, BatchNorm's "
                           "statistics too, which keeps this share of itself at each step, less in the first ones; "
                           "0: the weights themselves", low=0.0, high=0.999999)
    lookahead_every: int = key(0, "after so many steps pull a slow copy of the weights, BatchNorm's statistics too, "
                               "towards them and go on from there; the copy keeps 0.95^5 (step / all steps)^3 of "
                               "itself (arXiv:1907.08610, arXiv:2404.00498); 0: never", unit="steps", low=0)
    unfreeze_epoch: int = key(0, "train all from this epoch on, counted from 0, where model.freeze=backbone; 0: never",
                              unit="epochs", low=0)
    checkpoint_every_steps: int = key(0, "checkpoint so often within an epoch too, beside the one at its end; 0: never",
                                      unit="steps", low=0)
    monitor: str = key("val/accuracy", "the metric that makes an epoch the best one, by its name in the dashboard")
    monitor_mode: str = key("", "which values of train.monitor are better: max or min; empty for a metric that is "
                            "offered here, whose direction is known", choices=("", "max", "min"))
    early_stopping_patience: int = key(0, "stop after so many epochs without a better one; 0: never", unit="epochs",
                                       low=0)


@dataclass
class EvaluateConfig:
    tta: str = key("none", "test-time augmentation: logits are the mean over views of an image. mirror: itself and its "
                   "mirror image; mirror_translate: these, at half of the weight, and both moved by a pixel up and "
                   "left, and down and right (arXiv:2404.00498). For the last scores of a training, for evaluate, "
                   "predict and exports; validation after an epoch sees images as they are", choices=tuple(VIEWS))


@dataclass
class HardwareConfig:
    accelerator: str = key("auto", "where to compute; auto: a TPU or a GPU where there is one",
                           choices=("auto", "cpu", "gpu", "tpu"), only_choices={"tpu": "keras"})
    devices: int = key(1, "how many of them on each machine; 0: all there are. A CPU counts as many times as asked",
                       low=0, high=1024)
    num_nodes: int = key(1, "how many machines; several need a launcher, see configs/launchers", low=1, high=10_000)
    strategy: str = key("auto", "how the devices share the work. data_parallel: each holds the model and takes its "
                        "share of the batch (DDP in Lightning; Mirrored, MultiWorkerMirrored or TPU strategy in "
                        "Keras); fsdp: the model is shared out too (Lightning on GPUs); auto: data_parallel where "
                        "there are several",
                        choices=("auto", "single", "data_parallel", "fsdp"), only_choices={"fsdp": "lightning"})
    sync_batchnorm: bool = key(True, "BatchNorm sees the whole global batch; false: each device its own share, which "
                               "is another experiment on another number of devices")
    steps_per_execution: int = key(1, "training steps per call out of Python, faster where a step is short",
                                   unit="steps", low=1, high=10_000, only="keras", speed=True)
    precision: str = key("auto", "arithmetic of the layers; auto: bf16 where the hardware has it, else fp32, as for "
                         "depthwise convolutions (EfficientNet) on a CPU. Weights stay fp32 under bf16 and fp16",
                         choices=("auto", "fp32", "bf16", "fp16", "fp64"))
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
    examples: int = key(48, "test images, with a run's answers, in Weights & Biases; 0: no image is sent",
                        unit="images", low=0)
    weights: bool = key(True, "send the best weights to Weights & Biases where the run is online")
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
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    debug: DebugConfig = field(default_factory=DebugConfig)

    @property
    def group(self) -> str:
        # A name such as hf:owner/name must not become several folders.
        return self.experiment or re.sub(r"[:/\\]+", "-", f"{self.dataset.name}_{self.model.name}")


def list_keys(section: Any = Config, prefix: str = "") -> dict[str, Any]:
    """`{dotted key: dataclass field}` of the whole schema, in the order in which it is written."""
    found = {}
    for item in fields(section):
        if is_dataclass(item.type):
            found |= list_keys(item.type, f"{prefix}{item.name}.")
        else:
            found[prefix + item.name] = item
    return found


def get_value(config: Config, dotted: str) -> Any:
    for part in dotted.split("."):
        config = getattr(config, part)
    return config


def name_type(item: Field) -> str:
    if get_origin(item.type) is list:
        return f"list of {get_args(item.type)[0].__name__}"
    return item.type.__name__
