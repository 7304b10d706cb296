"""python -m shared.dashboard: a workspace and a report of W&B for the runs of both siblings."""

from shared.compare.dashboard.command import main
from shared.machine.ending import report_errors

if __name__ == "__main__":
    report_errors(main)
