"""python -m shared.card: a trained model as a folder that can be uploaded to the Hugging Face hub."""

from shared.artifacts.card.command import main
from shared.machine.ending import report_errors

if __name__ == "__main__":
    report_errors(main, advice="no card was written")
