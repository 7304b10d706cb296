"""Train many structures with one budget in both siblings, and write what they reach and what they cost.

    python -m shared.study                                       those of configs/study/fashion_mnist.yaml
    python -m shared.study model.name=resnet18,vit_tiny seed=0,1 others; each combination is trained
    python -m shared.study --into runs/flowers experiment=study_flowers dataset.name=image_folder dataset.root=FOLDER

The same command trains what is missing, and then writes study.json, study.png and a section of results.md.
"""

import argparse
import sys
from pathlib import Path

from shared.config.reading import is_path
from shared.errors import UserError
from shared.machine.arguments import Parser
from shared.machine.files import REPOSITORY, expand_home, write_json, write_whole
from shared.machine.pages import place_section, write_section
from shared.models import MODELS
from shared.training.study.page import COMMAND, format_section, tabulate_accuracy, tabulate_cost
from shared.training.study.records import collect_study
from shared.training.sweep.definition import choose_siblings
from shared.training.sweep.grid import list_points, train_points

FILE = "configs/study/fashion_mnist.yaml"
TOO_LARGE = ("efficientnet_b3", "vit_base")  # for the budget of that file; model.name= names them nevertheless
ADVICE = "choose another folder with --into"


def parse_arguments(words: list[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m shared.study", allow_abbrev=False, description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", metavar="WORD", nargs="*", help=f"config files, by default {FILE}, and "
                        "key=value,value,...; without model.name=, all structures that are not too large for that file")
    parser.add_argument("--siblings", default="", help="lightning, keras, or both with a comma; default: all that are "
                        "here")
    parser.add_argument("--only", metavar="MODEL,...", help="train these now, and the others another time")
    parser.add_argument("--report", action="store_true", help="train nothing, and write what has finished")
    parser.add_argument("--note", metavar="TEXT", default="", help="a sentence for the page, on what else the machine "
                        "did, say")
    parser.add_argument("--into", metavar="FOLDER", type=Path, default=REPOSITORY / "docs",
                        help="where results.md, study.json and study.png are written; default: docs")
    return parser.parse_intermixed_args(words)


def main() -> None:
    options = parse_arguments(sys.argv[1:])
    words = options.words
    if not any(map(is_path, words)):
        words = [FILE, *words]
    if not any(word.startswith("model.name=") for word in words):
        words = [*words, f"model.name={','.join(name for name in MODELS if name not in TOO_LARGE)}"]
    points = list_points(words, choose_siblings(options.siblings.split(",") if options.siblings else []))
    names = {point.config.model.name for point in points}
    chosen = names if options.only is None else set(options.only.split(","))
    if chosen - names:
        raise UserError(f"--only: {', '.join(sorted(chosen - names))} is not among the models of this study, which are "
                        f"{', '.join(sorted(names))}")
    folder = expand_home(options.into)
    try:  # before minutes of training
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--into: {folder} cannot be made ({error.strerror}); choose another") from None
    place_section(folder / "results.md", COMMAND, "")
    if not options.report:
        train_points([point for point in points if point.config.model.name in chosen], at_once=1)  # for their speed
    write_study(collect_study(points, options.words, options.note), folder)


def write_study(study: dict, folder: Path) -> None:
    """Write study.json, study.png and the section of results.md into `folder`, and print the tables.

    Raises:
        UserError: where a file cannot be written, or results.md has no place for the section.
    """
    from shared.training.study.picture import draw_study  # here, since matplotlib takes a second

    page = folder / "results.md"
    write_json(folder / "study.json", study, advice=ADVICE)
    write_whole(folder / "study.png", lambda file: draw_study(study, file), advice=ADVICE)
    write_section(page, COMMAND, format_section(study), advice=ADVICE)
    print("\n".join([tabulate_accuracy(study).to_text(), "", tabulate_cost(study).to_text(), "",
                     *(f"left out: {one['sibling']} {one['name']}: {one['reason']}" for one in study["left_out"]),
                     f"page: {page}"]))
