"""What is left of the scores beside a model's weights: JSON, a table of the classes, and two pictures."""

import csv
from dataclasses import asdict
from pathlib import Path

from shared.machine.files import write_json, write_whole
from shared.scores.calibration import Reliability
from shared.scores.report import list_confusions
from shared.scores.summary import Summary


def write_summary(summary: Summary, folder: Path, ending: str = "") -> list[Path]:
    """Write scores.json, per_class.csv, confusion.png and reliability.png into `folder`, and return their paths.

    `ending` stands behind each of these names, as in scores_keras.json.

    Raises:
        UserError: where one cannot be written.
    """
    from shared.scores.pictures import draw_confusion, draw_reliability

    scores, table, confusion, reliability = (folder / f"{stem}{ending}{suffix}" for stem, suffix in (
        ("scores", ".json"), ("per_class", ".csv"), ("confusion", ".png"), ("reliability", ".png")))
    how = {"apart": True, "advice": "make room, and let evaluate.py write the scores again"}
    write_json(scores, describe_summary(summary), **how)
    write_whole(table, lambda file: write_classes(summary, file), **how)
    write_whole(confusion, lambda file: draw_confusion(summary, file), **how)
    write_whole(reliability, lambda file: draw_reliability(summary, file), **how)
    return [scores, table, confusion, reliability]


def describe_summary(summary: Summary) -> dict:
    """What scores.json holds."""
    return {"images": summary.images, "validation_images": summary.val_images, **summary.scores,
            "notes": list(summary.notes),
            "confusions": [{"label": label, "answer": answer, "images": images}
                           for label, answer, images in list_confusions(summary)],
            "bins": describe_bins(summary.reliability),
            "scaled_bins": describe_bins(summary.scaled) if summary.scaled else None}


def describe_bins(found: Reliability) -> list[dict]:
    return [{"images": int(count), "confidence": float(confidence), "accuracy": float(accuracy)}
            for count, confidence, accuracy in zip(found.count, found.confidence, found.accuracy, strict=True)]


def write_classes(summary: Summary, path: Path) -> None:
    """Write per_class.csv: a row for each class, in the order of the classes. What cannot be computed stays empty."""
    rows = [asdict(scores) for scores in summary.per_class]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
