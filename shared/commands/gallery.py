"""python -m shared.gallery: pictures of what a run gets wrong, and where its model looked."""

from shared.machine.ending import report_errors
from shared.scores.gallery.command import main

if __name__ == "__main__":
    report_errors(main)
