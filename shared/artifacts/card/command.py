"""Write a trained model as a folder that can be uploaded to the Hugging Face hub.

    python -m shared.card RUN [--out FOLDER]

RUN is a finished run folder or a weight file of either sibling. The folder gets README.md, the model card;
model.safetensors; and config.json, where timm can build the model: timm.create_model("local-dir:FOLDER",
pretrained=True) then gives the run's logits, and so does "hf-hub:owner/name" once it is uploaded.
"""

import argparse
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.numpy import save as serialise

from shared.artifacts.card.page import find_run, write_card
from shared.artifacts.card.timm_format import UnknownToTimmError, describe_for_timm
from shared.errors import UserError
from shared.machine.arguments import Parser
from shared.machine.files import expand_home
from shared.runs.trained import read_trained
from shared.weights.file import read_weights

# The metadata that readers of PyTorch's weights look for. Ours are left out: they name folders of this machine.
METADATA = {"format": "pt"}


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m shared.card", allow_abbrev=False, description=__doc__.partition("\n")[0])
    parser.add_argument("run", metavar="RUN", help="a finished run folder, or a weight file of either sibling")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="a new folder; default: RUN/card")
    return parser.parse_args(arguments)


def fill_folder(out: Path, files: dict[str, Callable[[Path], object]]) -> None:
    """Write a new folder, whole or not at all: `files` are functions that write the file of that name.

    Raises:
        UserError: where the folder is there already and not empty, or cannot be written.
    """
    out = out.absolute()  # the name of "." would be empty
    unfinished = out.parent / f"{out.name}.unfinished"
    try:
        if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
            raise UserError(f"{out} is there already; delete it, or name a new folder with --out")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for name, write in files.items():
            write(unfinished / name)
        os.replace(unfinished, out)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(f"{out} cannot be written ({error.strerror or error}); make room, or name another folder "
                            "with --out") from None
        raise


def make_card(source: str, out: Path | None = None) -> Path:
    """Write the folder for the run or weight file `source`, and return its path.

    Raises:
        UserError: where there are no finished weights, or the folder cannot be written.
    """
    trained = read_trained(source)
    run = find_run(trained)
    if run and not run.finished:  # there may be better weights, and no scores yet
        raise UserError(f"{run.folder} is unfinished, it has no result.json and so no scores for a card; let it "
                        f"finish with resume={run.folder}")
    out = expand_home(out) if out else trained.weights.parent / "card"
    weights = read_weights(trained.weights)
    files = {"model.safetensors": lambda file: file.write_bytes(serialise(weights, METADATA))}
    try:
        facts, remark = describe_for_timm(trained, weights), ""
        files["config.json"] = lambda file: file.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except UnknownToTimmError as error:
        facts, remark = None, f"no config.json: timm cannot build {error}"
    text = write_card(trained, run, weights, facts)
    files["README.md"] = lambda file: file.write_text(text, encoding="utf-8")
    fill_folder(out, files)
    print(f"{out}: {', '.join(files)}")
    if remark:
        print(remark)
    return out


def main() -> None:
    options = parse_arguments(None)
    make_card(options.run, options.out)
