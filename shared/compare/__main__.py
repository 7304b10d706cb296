"""Compare two runs or twenty, in a table and a picture, and say whether they are the same experiment.

    python -m shared.compare                        the newest finished run of each sibling
    python -m shared.compare RUN RUN ...            run folders, of either sibling, finished or not
    python -m shared.compare --seeds                all seeds of a group: is the difference more than noise?
    python -m shared.compare --html                 also as a page to open in a browser, in one file
"""

import argparse
import sys
from pathlib import Path

from shared.compare.page import format_text
from shared.compare.report import compare_runs
from shared.errors import UserError, extract_user_message
from shared.machine.arguments import Parser
from shared.machine.ending import report_errors
from shared.machine.files import expand_home
from shared.machine.interpreters import list_siblings
from shared.runs.records import find_finished_runs, select_newest_runs


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m shared.compare", allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter,
                    description="Compare runs: table, picture, and whether they are the same experiment.")
    parser.add_argument("runs", metavar="RUN", nargs="*", type=Path,
                        help="run folders; none: the newest finished run of each sibling")
    parser.add_argument("--group", metavar="NAME", help="where no RUN is named: the group to take runs from;\n"
                        "default: the one with the newest finished run")
    parser.add_argument("--output-dir", metavar="FOLDER", type=Path, default=Path("runs"),
                        help="where run folders are made; default: runs")
    parser.add_argument("--out", metavar="FOLDER", type=Path,
                        help="where comparison.png, .md and .html go; default: the group's folder")
    parser.add_argument("--seeds", action="store_true", help="take all seeds, pair runs by seed and say how large "
                        "noise is;\nof several runs of a sibling and seed the newest counts")
    parser.add_argument("--html", action="store_true", help="also write comparison.html: curves to zoom, confusion, "
                        "calibration and the images\non which runs disagree, in one file that needs no network")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Compare the runs that the command line names, and return the exit status: 0, or 2 after a mistake of the user's.
    """
    try:
        options = parse_arguments(arguments)
        if options.runs and options.group is not None:
            raise UserError("--group chooses among all runs, and run folders are named too; drop one of the two")
        folders = options.runs
        if not folders:
            found = find_finished_runs(expand_home(options.output_dir), options.group, list_siblings())
            folders = [run.folder for run in select_newest_runs(
                found, by=lambda run: (run.framework, run.seed) if options.seeds else run.framework)]
        comparison = compare_runs(folders, options.out and expand_home(options.out), options.seeds, options.html)
        print(format_text(comparison))
        if comparison.unwritten:
            raise UserError(comparison.unwritten)
    except Exception as error:
        line = extract_user_message(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    report_errors(lambda: sys.exit(main()))
