"""Compare the exported models of one run or of several: size, accuracy, latency.

    python -m shared.artifacts RUN                  the models in RUN/exports
    python -m shared.artifacts RUN RUN              those of both siblings, in one table
"""

import argparse
import math
import signal
from pathlib import Path

from shared.artifacts.picture import draw_artifacts
from shared.artifacts.table import Row, find_artifacts, tabulate, write_notes, write_title
from shared.artifacts.timing import measure_in_turns
from shared.errors import StoppedError
from shared.machine.arguments import Parser
from shared.machine.console import say
from shared.machine.ending import report_errors
from shared.machine.files import expand_home, write_whole

ADVICE = "make room, or name a run first whose folder may be written to"


def compare_artifacts(runs: list[Path]) -> list[Row]:
    """Measure the exported models of the runs, print their table, and write artifacts.md and artifacts.png into the
    folder of the first.

    Raises:
        UserError: where a run has no exported models, or its folder cannot be written to.
    """
    artifacts = find_artifacts(runs)
    say(f"measuring {len(artifacts)} models in turns")
    rows = [Row(artifact, timing) for artifact, timing in zip(artifacts, measure_in_turns(artifacts), strict=True)]
    table, notes, title = tabulate(rows), write_notes(rows), write_title(rows)
    print(f"{table.to_text(math.inf)}\n\n" + "\n".join(notes))
    page = "\n\n".join([f"# {title}", table.to_markdown(), *notes, "![size against latency](artifacts.png)"]) + "\n"
    write_whole(runs[0] / "artifacts.png", lambda file: draw_artifacts(rows, title, file), advice=ADVICE)
    write_whole(runs[0] / "artifacts.md", lambda file: file.write_text(page, encoding="utf-8"), advice=ADVICE)
    print(f"\npicture: {runs[0] / 'artifacts.png'}\npage:    {runs[0] / 'artifacts.md'}")
    return rows


def main() -> None:
    parser = Parser(prog="python -m shared.artifacts", allow_abbrev=False, description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="run folders with exported models")
    options = parser.parse_args()
    try:
        compare_artifacts([expand_home(run) for run in options.runs])
    except KeyboardInterrupt:
        raise StoppedError("stopped; nothing was written", signal.SIGINT) from None


if __name__ == "__main__":
    report_errors(main)
