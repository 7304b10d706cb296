"""The parts of the check. Each tries one promise with the sibling's own programs and says what it found."""

import json
import shutil
import signal
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.bench.gpu.runner import ProgramError, Runner, find_reason, read_facts
from shared.bench.measure import ROUNDS, write_cifar10
from shared.bench.photographs import write_photographs
from shared.machine.hardware import count_cores
from shared.weights.file import read_weights

PASSES, FAILS, MEASURED, NEEDS_GPU = "passes", "fails", "measured", "needs a GPU"
FALL = 0.8          # the last losses of a training may be so many times the first ones
RATIO = 0.98        # of the bare step's speed, that a steady epoch has to reach
EXACT = 1e-8        # how far apart the weights of one training may be in fp64; a wrong step makes 1e-3 of it
FIRST_LOSS = 1e-4   # how far apart the first losses may be in fp32, of themselves
MEMORY = 1024       # MiB of the GPU's for a batch that does not fit into them
# Both frameworks' libraries, cuBLAS and cuDNN, obey it.
NO_TF32 = {"NVIDIA_TF32_OVERRIDE": "0"}

DIGITS = ("dataset.name=digits", "augment.crop=none", "schedule.name=constant", "schedule.warmup_epochs=0",
          "optimizer.lr=0.005", "train.epochs=1", "tracking.mode=disabled", "tracking.log_every_steps=1")
# Twelve steps in fp64, on images so small that a CPU makes them in seconds.
SMALL = (*DIGITS, "hardware.precision=fp64", "dataset.limit_train=160", "dataset.limit_test=32", "train.batch_size=12",
         "train.checkpoint_every_steps=4", "hardware.threads=1")
KILLED_AFTER = 9  # of these steps, one after a checkpoint


@dataclass(frozen=True)
class Finding:
    outcome: str
    text: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """What `title` names, checked within so many `seconds`, in every sibling or `only` in one."""

    title: str
    check: Callable[[Runner], Finding]
    needs_gpu: bool = False
    only: str = ""
    seconds: int = 180


def train_digits(runner: Runner, name: str, *words: str, accelerator: str = "",
                 variables: dict[str, str] | None = None) -> Path:
    """The run of some twenty steps on the digits, large enough for a GPU's fast paths, in fp32 or as `words` say."""
    size = ("dataset.image_size=32",) if runner.on_gpu else ("dataset.limit_train=400", "train.batch_size=32",
                                                                  "hardware.threads=1")
    return runner.train(name, *DIGITS, *size, *words, accelerator=accelerator, variables=variables)


def check_learning(runner: Runner, name: str, *words: str, variables: dict[str, str] | None = None) -> Finding:
    """Whether the loss of a training is finite, which train.py sees to, and falls."""
    run = train_digits(runner, name, *words, variables=variables)
    losses, facts = read_losses(run), read_facts(run)
    first, last = (statistics.mean(part) for part in (losses[:3], losses[-3:]))
    return Finding(PASSES if last < FALL * first else FAILS,
                   f"loss {first:.3g} → {last:.3g} in {len(losses)} steps ({facts['precision']}, {facts['strategy']})",
                   {"first losses": first, "last losses": last, "peak_memory_gib": read_peak_memory(run)})


def compare_with_cpu(runner: Runner) -> Finding:
    """How far trainings on the GPU are from those on the CPU; in fp32 beside how far the CPU is from itself with
    another number of threads."""
    cpu = train_digits(runner, "cpu", "hardware.precision=fp32", accelerator="cpu")
    others = {
        "CPU with one thread, fp32": train_digits(runner, "cpu_thread", "hardware.precision=fp32",
                                                  "hardware.threads=1", accelerator="cpu"),
        "GPU, fp32 without TF32": train_digits(runner, "fp32", "hardware.precision=fp32", variables=NO_TF32),
        "GPU, fp32 with TF32": train_digits(runner, "tf32", "hardware.precision=fp32")}
    apart = {name: measure_distance(cpu, run) for name, run in others.items()}
    apart["GPU, fp64"] = measure_distance(runner.train("small_cpu", *SMALL, accelerator="cpu"),
                                          runner.train("small", *SMALL))
    passes = (apart["GPU, fp64"]["weights"] <= EXACT
              and apart["GPU, fp32 without TF32"]["first loss"] <= FIRST_LOSS)
    return Finding(PASSES if passes else FAILS,
                   "from the CPU: " + "; ".join(f"{name}: {format_distance(found)}" for name, found in apart.items()),
                   {f"{name}: {what}": value for name, found in apart.items() for what, value in found.items()})


def check_resuming(runner: Runner, begun_on: str = "") -> Finding:
    """Whether a run that is killed and goes on ends as one that was not, also where it had begun on a CPU."""
    whole = runner.train("small", *SMALL)
    begun_on = begun_on or runner.accelerator
    name = f"killed_on_{begun_on}"
    status, log, _ = runner.call("gpu_check", "killed", KILLED_AFTER, *SMALL, f"hardware.accelerator={begun_on}",
                                 f"output_dir={runner.folder / name}")
    if status != -signal.SIGKILL:
        raise ProgramError(f"the training to be killed was not: {find_reason(status, log)}", log)
    apart = measure_distance(whole, runner.train(name, *SMALL, "resume=auto"))
    return Finding(PASSES if apart["weights"] <= EXACT else FAILS,
                   f"killed after step {KILLED_AFTER} and continued, in fp64, from an unbroken run: "
                   f"{format_distance(apart)}", apart)


def check_memory_line(runner: Runner) -> Finding:
    """Whether a batch that does not fit into the GPU's memory ends with a line that says so and status 2."""
    status, log, _ = runner.call("gpu_check", "little_memory", MEMORY, *DIGITS, "dataset.image_size=224",
                                 "train.batch_size=512")
    told = [line for line in log if line.startswith("error: ")]
    if status != 2 or len(told) != 1 or "train.batch_size=512 did not fit into memory" not in told[0]:
        raise ProgramError(f"status {status}: {find_reason(status, log)}", log)
    return Finding(PASSES, f"status 2, “{told[0]}”")


def measure_epoch(runner: Runner, on_gpu: tuple[str, int, int, int], on_cpu: tuple[str, int, int, int],
                  *words: str) -> Finding:
    """How fast the steady epoch of a training is, beside the bare step: of a model, with images of so many pixels,
    batches of so many images, and so many steps."""
    model, size, batch, steps = on_gpu if runner.on_gpu else on_cpu
    data = runner.folder / "cifar-10-batches-bin"
    if not data.exists():
        data.mkdir()
        write_cifar10(data, images=10_000)
    return measure_rounds(runner, f"{model}, {size} pixels, batch {batch}", "dataset.name=cifar10",
                          f"dataset.root={data}", f"dataset.image_size={size}", "dataset.val_fraction=0.1",
                          f"dataset.limit_train={(steps + 1) * batch * 10 // 9}", "dataset.limit_test=128",
                          f"model.name={model}", f"train.batch_size={batch}", *words)


def measure_files(runner: Runner) -> Finding:
    """The same from photographs, and how fast they are read and augmented on the CPU without a model."""
    model, size, batch, count = ("resnet50", 224, 64, 1536) if runner.on_gpu else ("resnet18", 32, 8, 48)
    root = runner.folder / "photographs"
    if not root.exists():
        write_photographs(root, 500, 375, min(count, 256))
        for number, file in zip(range(256, count), sorted(root.glob("train/*/*.jpg")) * count, strict=False):
            shutil.copy(file, file.with_name(f"{number}.jpg"))
    readers = min(8, count_cores())
    words = ("dataset.name=image_folder", f"dataset.root={root}", f"dataset.image_size={size}", "augment.crop=resized",
             f"model.name={model}", f"train.batch_size={batch}", f"hardware.workers={readers}")
    found = measure_rounds(runner, f"{model}, {size} pixels, batch {batch}", *words)
    alone = runner.measure("bench", "input", 5 if runner.on_gpu else 1, *words, "hardware.accelerator=cpu",
                           "train.epochs=10000")["second"]
    return Finding(MEASURED, f"{found.text}; {readers} readers alone: {alone:.0f} images/s",
                   found.figures | {"readers alone": alone})


def measure_rounds(runner: Runner, what: str, *words: str) -> Finding:
    shutil.rmtree(runner.folder / "rounds", ignore_errors=True)
    rounds = runner.measure("bench", "rounds", ROUNDS if runner.on_gpu else 1, *words, "augment.flip=true",
                            "train.epochs=2", "schedule.warmup_epochs=0", "hardware.precision=auto")
    train, bare = (statistics.median(one[name] for one in rounds) for name in ("train", "bare"))
    ratio = statistics.median(one["train"] / one["bare"] for one in rounds)
    run = next(runner.folder.glob("rounds/*/*/"))
    memory, precision = read_peak_memory(run), read_facts(run)["precision"]
    outcome = MEASURED if not runner.on_gpu else PASSES if ratio >= RATIO else FAILS
    return Finding(outcome, f"{what}, {precision}: {train:,.0f} images/s, bare step {bare:,.0f}, ratio {ratio:.3f}, "
                            f"{memory:.1f} GiB",
                   {"train": train, "bare": bare, "ratio": ratio, "peak_memory_gib": memory})


def measure_layouts(runner: Runner) -> Finding:
    words = ("dataset.image_size=224", "model.name=resnet50", "train.batch_size=64") if runner.on_gpu else \
        ("dataset.image_size=32", "train.batch_size=8")
    found = runner.measure("gpu_check", "layouts", 20 if runner.on_gpu else 3, "dataset.name=digits",
                           "hardware.precision=auto", *words)
    return Finding(MEASURED, "bare step, images/s: " + ", ".join(f"{name} {speed:,.0f}"
                                                                 for name, speed in found.items()), found)


def read_peak_memory(run: Path) -> float:
    return json.loads((run / "result.json").read_text(encoding="utf-8"))["perf/peak_memory_gib"]


def read_losses(run: Path) -> list[float]:
    """The training loss of each step of a run."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["train/loss_step"] for row in rows if "train/loss_step" in row]


def measure_distance(one: Path, other: Path) -> dict[str, float]:
    """How far two runs are apart: in the losses of the first and of the last step, in the weights and in the logits of
    the test images; in shares of the loss, of a tensor's largest weight or of 1, and of the largest logit."""
    losses = np.array([read_losses(one), read_losses(other)])
    first, last = np.abs(losses[0] - losses[1])[[0, -1]] / losses[0, [0, -1]]
    weights, others = (read_weights(run / "best.safetensors") for run in (one, other))
    apart = max(float(np.abs(tensor - others[name]).max()) / max(1, float(np.abs(tensor).max()))
                for name, tensor in weights.items())
    logits = [np.load(run / "predictions.npz")["logits"] for run in (one, other)]
    return {"first loss": float(first), "last loss": float(last), "weights": apart,
            "test logits": float(np.abs(logits[0] - logits[1]).max() / np.abs(logits[0]).max())}


def format_distance(found: dict[str, float]) -> str:
    return ", ".join(f"{what} {value:.1g}" for what, value in found.items())


FP32 = "hardware.precision=fp32"
RESNET50 = ("resnet50", 224, 128, 40), ("resnet50", 32, 8, 4)  # on a GPU and on a CPU, see measure_epoch
PARTS = {
    "fp32": Part("fp32 without TF32", lambda runner: check_learning(runner, "fp32", FP32, variables=NO_TF32)),
    "tf32": Part("fp32 with TF32", lambda runner: check_learning(runner, "tf32", FP32), needs_gpu=True),
    "bf16": Part("bf16", lambda runner: check_learning(runner, "bf16", "hardware.precision=bf16")),
    "fp16": Part("fp16 with loss scaling", lambda runner: check_learning(runner, "fp16", "hardware.precision=fp16"),
                 needs_gpu=True),
    "compile": Part("`hardware.compile=true`",
                    lambda runner: check_learning(runner, "compile", "hardware.compile=true")),
    "data_parallel": Part("`hardware.strategy=data_parallel`, one device", lambda runner: check_learning(
        runner, "data_parallel", "hardware.strategy=data_parallel")),
    "fsdp": Part("`hardware.strategy=fsdp`, one device", lambda runner: check_learning(
        runner, "fsdp", "hardware.strategy=fsdp", "model.name=vit_tiny", "optimizer.name=adamw", "optimizer.lr=0.001"),
        needs_gpu=True, only="lightning"),
    "cpu": Part("the same training as on the CPU", compare_with_cpu, needs_gpu=True, seconds=240),
    "resume": Part("killed and resumed", check_resuming),
    "cpu_to_gpu": Part("killed on the CPU, resumed on the GPU", lambda runner: check_resuming(runner, "cpu"),
                       needs_gpu=True),
    "memory": Part("out of memory is told in a line", check_memory_line, needs_gpu=True),
    "resnet18": Part("epoch over bare step, ResNet-18",
                     lambda runner: measure_epoch(runner, ("resnet18", 32, 128, 300), ("resnet18", 32, 8, 4))),
    "resnet50": Part("epoch over bare step, ResNet-50",
                     lambda runner: measure_epoch(runner, *RESNET50), seconds=240),
    "resnet50_compile": Part("epoch over bare step, ResNet-50 compiled", lambda runner: measure_epoch(
        runner, *RESNET50, "hardware.compile=true"), needs_gpu=True, seconds=240),
    "vit_base": Part("epoch over bare step, ViT-Base", lambda runner: measure_epoch(
        runner, ("vit_base", 224, 64, 40), ("vit_tiny", 32, 8, 4)), seconds=240),
    "files": Part("photographs from files", measure_files, seconds=240),
    "layouts": Part("channels_last or not", measure_layouts, only="lightning"),
}


def list_parts(siblings: tuple[str, ...]) -> dict[str, Part]:
    """The parts of each sibling, as sibling/part."""
    return {f"{sibling}/{name}": part for sibling in siblings for name, part in PARTS.items()
            if part.only in ("", sibling)}
