"""python -m shared.study: every structure with one budget in both siblings, and what came of it."""

from shared.machine.ending import report_errors
from shared.training.study.command import main
from shared.training.sweep.training import ADVICE

if __name__ == "__main__":
    report_errors(main, advice=ADVICE)
