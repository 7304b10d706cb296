"""The command line of predict.py, the same in both siblings."""

import argparse
import glob
import os
import signal
import sys
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from shared.config.schema import list_keys
from shared.errors import StoppedError, UserError
from shared.machine.arguments import Parser
from shared.machine.console import format_percent, say
from shared.machine.ending import report_errors
from shared.machine.files import expand_home

HELP = """RUN     a run folder or .safetensors file of either sibling, or the folder of an exported model
SOURCE  image files; folders, whose images count at any depth; patterns in quotes, such as 'images/**/*.jpg',
        for the files that match them; or - for the names of files on standard input, one on each line

The rows have the columns path, class and probability, and they are in the order of the sources; those of a folder are
ordered by path. The column error says why a file could not be read; the exit status is 1 then. Where the sub-folders of
a folder are all called like classes, there is the column label too, and the accuracy is told at the end.

key=value sets how the model runs: hardware.accelerator, hardware.precision, hardware.threads, hardware.workers (threads
that read images) and train.eval_batch_size. A word is a file where there is one of its name, or one that matches it."""


def parse_arguments(arguments: list[str], command: str, purpose: str) -> argparse.Namespace:
    """The options, with the other words sorted into `run`, `sources` and `keys`. Raises `UserError`."""
    parser = Parser(prog=command, usage=f"{command} RUN SOURCE... [options] [key=value ...]", allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter, description=purpose, epilog=HELP)
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--out", metavar="FILE", type=Path, help="write a .csv, .jsonl or .parquet file, which has its "
                        "name once it is whole; default: standard output")
    parser.add_argument("--format", choices=("csv", "jsonl", "parquet"),
                        help="of standard output; default: csv")
    parser.add_argument("--top", metavar="K", type=int, default=1, help="the K most probable classes: columns class_2, "
                        "probability_2 and so on; default: 1")
    parser.add_argument("--logits", action="store_true", help="a column logit_CLASS for each class")
    parser.add_argument("--stop-on-bad", action="store_true", help="stop with exit status 2 at the first file that "
                        "cannot be read")
    options = parser.parse_intermixed_args(arguments)
    if not options.words:
        raise UserError(f"name a run folder, a .safetensors file or an exported model first, then images: {command} "
                        "runs/quickstart/... image.png; see --help")
    options.run, *rest = options.words
    options.keys = [word for word in rest if is_key(word)]
    options.sources = [word for word in rest if not is_key(word)]
    if not options.sources:
        raise UserError(f"name images after {options.run}: files, folders, patterns in quotes, or - for names on "
                        "standard input")
    return options


def is_key(word: str) -> bool:
    """Whether a word is key=value and not the name of an image."""
    name, sign, _ = word.partition("=")
    path = os.path.expanduser(word)
    return bool(sign) and not os.path.lexists(path) and (
        name in list_keys() or (os.sep not in word and not glob.glob(path)))


def run_command(build_compute: Callable, sibling: str, purpose: str) -> None:
    """Answer a sibling's command line. `build_compute` makes of a trained model the function from images to logits."""
    def start() -> None:
        options = parse_arguments(sys.argv[1:], f"python {sibling}_project/predict.py", purpose)
        try:
            sys.exit(answer(options, build_compute))
        except KeyboardInterrupt:
            raise StoppedError("stopped", signal.SIGINT) from None
    report_errors(start, any_words=True)


def answer(options: argparse.Namespace, build_compute: Callable) -> int:
    """Write the rows and return the exit status: 1 where a file could not be read, otherwise 0.

    Raises:
        UserError: where the model, the images or the output cannot be had, or at an unreadable file if asked for.
    """
    from shared.artifacts.prediction.answers import predict_items
    from shared.artifacts.prediction.model import open_model
    from shared.artifacts.prediction.rows import Layout, choose_format, open_rows
    from shared.artifacts.prediction.sources import find_sources

    out = options.out and expand_home(options.out)
    form = choose_format(out, options.format)
    model = open_model(options.run, options.keys, build_compute)
    if not 1 <= options.top <= len(model.classes):
        raise UserError(f"--top {options.top} is out of range, since the model knows {len(model.classes)} classes; "
                        f"choose 1 to {len(model.classes)}")
    sources, remarks = find_sources(options.sources, model.classes)
    for remark in remarks:
        say(remark)
    items = chain.from_iterable(source.list_items() for source in sources)
    first = next(items, None)
    if first is None:
        raise UserError("no image is named on standard input")
    layout = Layout(model.classes, any(source.labels for source in sources), options.top, options.logits)
    with open_rows(out, form, layout) as write:
        predictions = predict_items(model, model.load(), chain([first], items))
        return write_rows(predictions, write, layout, options.stop_on_bad, quiet=out is None and sys.stdout.isatty())


def write_rows(predictions: Iterable[Any], write: Callable, layout: Any, stop_on_bad: bool, quiet: bool) -> int:
    """Write what is predicted, say at the end how good it is and what has no answer, and return the exit status.
    There is no progress bar where `quiet`, since the rows on the terminal show the progress."""
    from tqdm import tqdm

    right = labelled = bad = done = 0
    with tqdm(desc="predict", unit="image", disable=quiet or None, leave=False) as bar:
        for prediction in predictions:
            if prediction.error and stop_on_bad:
                raise UserError(f"{prediction.path}: {prediction.error}; without --stop-on-bad, it becomes a row with "
                                "its error")
            write(layout.arrange(prediction))
            bar.update()
            done += 1
            bad += bool(prediction.error)
            if prediction.label and not prediction.error:
                labelled += 1
                right += prediction.class_name == prediction.label
    if labelled:
        say(f"accuracy {format_percent(right / labelled)} ({right:,} of {labelled:,} images with a label)")
    if bad:
        say(f"{bad:,} of {done:,} images have no answer; the column error says why")
    return 1 if bad else 0
