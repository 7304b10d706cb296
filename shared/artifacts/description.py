"""artifact.json, which stands beside an exported model and says all that a program needs to ask it about images."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.artifacts.formats import FORMATS
from shared.data.preprocessing import Preprocessing
from shared.errors import UserError
from shared.machine.files import expand_home

DESCRIPTION = "artifact.json"
KIND = "lightning-keras-template/artifact/1"
INPUTS = {"uint8": "pixels 0 to 255, as they are after scaling", "float": "pixels after scaling and normalisation"}


@dataclass(frozen=True)
class Artifact:
    """An exported model. `file` is a folder for a SavedModel; `quantisation` is empty for fp32; `input` is one of
    INPUTS, and images are (n, S, S, C) in either. `content` is all of artifact.json."""

    folder: Path
    content: dict[str, Any]

    @property
    def format(self) -> str:
        return self.content["format"]

    @property
    def file(self) -> Path:
        return self.folder / FORMATS[self.format].file

    @property
    def maker(self) -> str:
        return self.content["maker"]

    @property
    def quantisation(self) -> str:
        return self.content["quantisation"]

    @property
    def input(self) -> str:
        return self.content["input"]

    @property
    def name(self) -> str:
        return name_artifact(self.maker, self.format, self.quantisation, self.input)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.content["classes"])

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing.from_dict(self.content["preprocessing"])

    @property
    def weights(self) -> Path:
        """The file that it was made of, which may be gone, or hold other weights now."""
        return self.folder.parents[1] / self.content.get("weights_file", "best.safetensors")

    @property
    def size(self) -> int:
        """Bytes of the model itself."""
        files = [self.file] if self.file.is_file() else [path for path in self.file.rglob("*") if path.is_file()]
        return sum(path.stat().st_size for path in files)


def name_artifact(maker: str, form: str, quantisation: str, input: str) -> str:
    return "-".join(filter(None, (maker, form, quantisation, "float" if input == "float" else "")))


def is_artifact(path: str | os.PathLike) -> bool:
    """Whether this is the folder of an exported model, or a file in it."""
    place = expand_home(path)
    return os.path.isfile(place / DESCRIPTION) or os.path.isfile(place.parent / DESCRIPTION)


def read_artifact(path: str | os.PathLike) -> Artifact:
    """The exported model in a folder, or in the folder of a file.

    Raises:
        UserError: where it was not made by this repository, is damaged, or has not passed its checks.
    """
    artifact = read_unchecked(path)
    if not artifact.content.get("checks", {}).get("passed"):
        reasons = artifact.content.get("checks", {}).get("reasons") or ["it was not checked to its end"]
        raise UserError(f"{artifact.folder} is not to be used: {'; '.join(reasons)}; export the model again")
    return artifact


def read_unchecked(path: str | os.PathLike) -> Artifact:
    """The same for a model that has not passed its checks yet."""
    place = expand_home(path)
    folder = place if os.path.isfile(place / DESCRIPTION) else place.parent
    file = folder / DESCRIPTION
    if not os.path.isfile(file):
        raise UserError(f"{place} is no exported model of this repository, since no {DESCRIPTION} lies with it; name a "
                        "folder in RUN/exports, which export.py makes")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["kind"] != KIND:
            raise ValueError(f"kind {content['kind']}, expected {KIND}")
        artifact = Artifact(folder, content)
        if not (artifact.classes and artifact.preprocessing and artifact.input in INPUTS):
            raise ValueError("no classes, or another input")
        there = os.path.exists(artifact.file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged or was not written by this version ({type(error).__name__}: {error}); "
                        "export the model again") from None
    if not there:
        raise UserError(f"{artifact.file} is missing, which {DESCRIPTION} describes; export the model again")
    return artifact
