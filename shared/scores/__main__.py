"""The scores of a run, from its saved predictions.

    python -m shared.scores RUN                     every score, and the table of the classes
    python -m shared.scores RUN --suspects [N]      the N test images whose label is most likely wrong
"""

import argparse
import math
import os
from pathlib import Path

from shared.config import read_kept_config
from shared.data.loading import Data, load_data
from shared.errors import UserError
from shared.machine.arguments import Parser
from shared.machine.console import Table, say
from shared.machine.ending import report_errors
from shared.machine.files import expand_home
from shared.runs.records import FRAMEWORKS, VAL, Predictions, SavedRun, read_predictions, read_run
from shared.scores.report import format_full
from shared.scores.summary import summarise_predictions
from shared.scores.suspects import find_conflicts, find_suspects


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m shared.scores", allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter,
                    description="Print the scores of a run, from its saved predictions.")
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder, of either sibling")
    parser.add_argument("--suspects", metavar="N", nargs="?", const=20, type=int,
                        help="list the N test images whose label the model finds least likely, and images that are\n"
                             "there twice under two labels; default: 20")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Print what the command line asks for. Raises `UserError` for a mistake of the user's."""
    options = parse_arguments(arguments)
    if options.suspects is not None and options.suspects < 1:
        raise UserError(f"--suspects {options.suspects}: expected a number of images, 1 or more")
    run = read_run(expand_home(options.run))
    path, test, val = find_predictions(run.folder)
    classes = run.record.get("classes") or []
    if len(classes) != test.logits.shape[1]:
        classes = list(map(str, range(test.logits.shape[1])))
    if options.suspects:
        print_suspects(run, test, classes, options.suspects)
        return
    print(f"{path}\n{format_full(summarise_predictions(test, val, classes))}")
    if val is None:
        say(f"{path.name} was written by an older version; evaluate.py {run.folder} writes a file with both")


def find_predictions(folder: Path) -> tuple[Path, Predictions, Predictions | None]:
    """A file with the predictions for the test images of the run in `folder`, and for the validation images where they
    were kept: 1. its own, 2. one that evaluate.py has written; one with validation images comes before one without.

    Raises:
        UserError: where there is none.
    """
    older = None
    for name in ("predictions.npz", *(f"predictions_{framework}.npz" for framework in FRAMEWORKS)):
        test = read_predictions(folder / name)
        val = test and read_predictions(folder / name, VAL)
        if val:
            return folder / name, test, val
        older = older or (test and (folder / name, test, None))
    if older is None:
        raise UserError(f"{folder} has no predictions.npz, as its training has not ended; evaluate.py {folder} makes "
                        "predictions with the weights of its best epoch")
    return older


def print_suspects(run: SavedRun, test: Predictions, classes: list[str], count: int) -> None:
    data = load_test_images(run, test)
    names = [str(index) for index in range(int(test.index.max()) + 1)]
    if data and data.test.files is not None:
        names = [os.path.relpath(file, data.root) for file in data.test.files.tolist()]
        print(f"images below {data.root}")
    rows = [[names[one.index], classes[one.label], f"{one.label_probability:.2g}", classes[one.answer],
             f"{one.answer_probability:.4f}"] for one in find_suspects(test, count)]
    header = ["test image", "label", "its probability", "model's answer", "its probability"]
    print(Table(header, rows).to_text(math.inf))
    if data is None:
        return
    pairs = find_conflicts(data.test)
    print(f"\n{len(pairs):,} of {len(data.test):,} test images are there twice under two labels"
          + (":" if pairs else "."))
    for second, first in pairs[:count]:
        print(f"  {names[first]} ({classes[data.test.labels[first]]}) = "
              f"{names[second]} ({classes[data.test.labels[second]]})")


def load_test_images(run: SavedRun, test: Predictions) -> Data | None:
    """The data set that a run was tested on; None, after a line that says so, where it is not here any more."""
    path = run.folder / "config.yaml"
    try:
        data = load_data(read_kept_config(path.read_text(encoding="utf-8"), path))
    except UserError as error:
        say(f"images have no names here, only numbers among the test images: {error}")
        return None
    recorded = run.record.get("fingerprints.test")
    if recorded not in (None, data.fingerprints()["test"]) or len(data.test) <= test.index.max():
        say("images have no names here, only numbers among the test images: the data set is no longer what the run was "
            "tested on")
        return None
    return data


if __name__ == "__main__":
    report_errors(main)
