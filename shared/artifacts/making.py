"""Making exported models: written beside their final place, checked there, and put in place when they have passed."""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.artifacts.checking import check_artifact, require_room
from shared.artifacts.describing import describe_artifact, describe_check, write_description, write_readme
from shared.artifacts.description import name_artifact, read_unchecked
from shared.artifacts.quantisation import quantise_onnx
from shared.artifacts.runtimes import round_pixels
from shared.artifacts.samples import Samples
from shared.errors import UserError, summarise_error
from shared.machine.console import say
from shared.runs.trained import Trained
from shared.weights.file import Weights, read_weights

BATCH = 64
ROOM = 2.5  # bytes that have to be free before a model is written, for each of its weights', since it is written twice


@dataclass(frozen=True)
class Job:
    """What is to be exported. `input` is one of INPUTS, `quantisation` is empty for fp32, `calibration` holds training
    images (n, S, S, C) of values 0 to 255 where the quantisation needs them."""

    trained: Trained
    maker: str
    formats: tuple[str, ...]
    input: str
    quantisation: str
    samples: Samples
    calibration: np.ndarray | None

    @property
    def calibration_inputs(self) -> np.ndarray | None:
        """The calibration's images as the exported model takes them."""
        if self.calibration is None:
            return None
        normalise = self.trained.preprocessing.normalise
        return round_pixels(self.calibration) if self.input == "uint8" else normalise(self.calibration)


def make_artifacts(job: Job, answer: Callable[[np.ndarray], np.ndarray],
                   writers: dict[str, Callable[[Path], object]]) -> list[Path]:
    """Write each format of the job by its function in `writers`, check it, and return the folders.

    `answer` is the trained model in fp32: from normalised images (n, S, S, C) to logits (n, K).

    Raises:
        UserError: where a format cannot take the model, an exported model does not answer as the trained one, or there
            is no room for it. All other formats are made nevertheless.
    """
    weights, normalise = read_weights(job.trained.weights), job.trained.preprocessing.normalise

    def ask_trained(pixels: np.ndarray) -> np.ndarray:
        """Logits (n, K) of images (n, S, S, C) of values 0 to 255."""
        return np.concatenate([answer(normalise(pixels[first:first + BATCH]))
                               for first in range(0, len(pixels), BATCH)])

    seen = round_pixels(job.samples.pixels) if job.input == "uint8" else job.samples.pixels
    expected, made, failures = ask_trained(seen), [], []
    rounding = 0.0 if seen.dtype == job.samples.pixels.dtype else \
        float(np.abs(ask_trained(job.samples.pixels) - expected).max())
    for form in job.formats:
        try:
            made.append(make_artifact(job, form, writers[form], weights, ask_trained, expected, rounding))
        except UserError as error:
            failures.append(error)
    for error in failures[:-1]:
        say(f"error: {error}")
    if failures:
        raise failures[-1]
    return made


def make_artifact(job: Job, form: str, write: Callable[[Path], object], weights: Weights,
                  ask_trained: Callable[[np.ndarray], np.ndarray], expected: np.ndarray, rounding: float) -> Path:
    """One format of the job, whose folder is returned. Raises `UserError` as `make_artifacts` does."""
    name = name_artifact(job.maker, form, job.quantisation, job.input)
    final = job.trained.weights.parent / "exports" / name
    size = sum(4 * tensor.size for tensor in weights.values())
    with build_beside(final, ROOM * size) as folder:
        content = describe_artifact(job.trained, job.maker, form, job.quantisation, job.input, weights)
        write_description(folder, content)
        file = folder / content["file"]
        try:
            with keep_back_output(folder / "converter.log"):
                write(file)
                if form == "onnx" and job.quantisation:
                    quantise_onnx(file, job.quantisation, job.calibration_inputs)
        except Exception as error:  # converters raise whatever the first layer that they do not know leads to
            if isinstance(error, UserError | OSError | ModuleNotFoundError):
                raise
            require_room(str(error))
            raise UserError(f"model.name={job.trained.config.model.name} cannot be exported to {name} "
                            f"({summarise_error(error)}); choose another format") from error
        check = check_artifact(read_unchecked(folder), job.samples, expected, size, ask_trained)
        check.delta_of_rounding = rounding
        write_description(folder, content | {"checks": check.to_dict()})
        if check.passed:
            write_readme(read_unchecked(folder), job.trained, weights)
        target = final if check.passed else final.with_name(f"{name}.rejected")
        put_in_place(folder, target)
    if not check.passed:
        raise UserError(f"{target} does not answer as the trained model: {'; '.join(check.reasons)}")
    shutil.rmtree(final.with_name(f"{name}.rejected"), ignore_errors=True)  # of an earlier try
    print(f"{name}: {describe_check(check.to_dict())}\n    {final}")
    return final


@contextlib.contextmanager
def build_beside(final: Path, room: float) -> Iterator[Path]:
    """An empty folder beside `final` to write into, which is gone after the block, whatever happens.

    Raises:
        UserError: where it cannot be made, or the disk has no `room`, in bytes, or becomes full in the block.
    """
    folder = final.with_name(f"{final.name}.unfinished")
    try:
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
        restore_older(final)
        folder.mkdir(parents=True)
        free = shutil.disk_usage(folder).free
        if free < room:
            raise UserError(f"{final} needs {room / 1e6:,.0f} MB on the disk and {free / 1e6:,.0f} are free; make room")
        yield folder
    except OSError as error:
        raise UserError(f"{final} cannot be written ({error.strerror or error}); make room, or export a copy of the "
                        "run folder that may be written to") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(folder: Path, target: Path) -> None:
    """Rename a folder to `target`. One that is there stays whole until then, and after a kill `restore_older` finds it.
    """
    older = name_older(target)
    if target.exists():
        shutil.rmtree(older, ignore_errors=True)
        os.replace(target, older)
    try:
        os.replace(folder, target)
    except BaseException:
        restore_older(target)
        raise
    shutil.rmtree(older, ignore_errors=True)


def name_older(target: Path) -> Path:
    return target.with_name(f"{target.name}.older")


def restore_older(target: Path) -> None:
    """Give an export its name back, where a process was killed between the two renames of `put_in_place`."""
    if name_older(target).exists() and not target.exists():
        os.replace(name_older(target), target)


@contextlib.contextmanager
def keep_back_output(log: Path) -> Iterator[None]:
    """Write what converters print, also from C++, to `log`, which stays only where the process dies. What goes wrong in
    them is raised."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream]
    for stream in streams:
        stream.flush()
    kept = os.dup(1), os.dup(2)
    with log.open("wb") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # of a full disk
                for stream in streams:
                    stream.flush()
            for number, before in zip((1, 2), kept, strict=True):
                os.dup2(before, number)
                os.close(before)
    log.unlink()
