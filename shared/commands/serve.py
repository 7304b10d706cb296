"""python -m shared.serve: a server that answers questions about images from an exported model."""

from shared.artifacts.serve.command import main
from shared.machine.ending import report_errors

if __name__ == "__main__":
    report_errors(main)
