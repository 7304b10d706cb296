"""python -m shared.sweep: a search over keys, or all combinations of some values, in both siblings."""

from shared.machine.ending import report_errors
from shared.training.sweep.command import main
from shared.training.sweep.training import ADVICE

if __name__ == "__main__":
    report_errors(main, advice=ADVICE)
