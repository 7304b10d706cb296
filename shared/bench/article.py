"""Measure an epoch of ResNet-18 on CIFAR-10 beside what the frameworks need without this repository.

python -m shared.bench.article [--rounds N] [--out FILE] [--page FILE]

The images are random, in CIFAR-10's shape, and lie in memory. Each measurement trains two epochs of a few steps in a
process of its own, with crops, mirroring and Adam. An epoch of 50,000 images is extrapolated from the second one; what
the first one takes more is told apart. All cases take turns.
"""

import statistics
import sys

from shared.bench.rounds import (
    Measurement,
    format_spread,
    measure_in_rounds,
    parse_arguments,
    prepare_bench,
    print_table,
    select,
)
from shared.machine.console import Table
from shared.machine.ending import report_errors
from shared.machine.interpreters import find_interpreter, list_siblings

EPOCH = 50_000  # images, as CIFAR-10 has for training
BATCHES = 32, 128
IMAGES = 512  # that a measured epoch has instead
STOCK = {"lightning": "PyTorch", "keras": "TensorFlow and Keras"}
# Seconds per epoch for each of BATCHES, and GB. Its hardware and precision are not known here.
ARTICLE = {"PyTorch": (128, 98, 4.2), "TensorFlow": (142, 105, 4.5)}


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments, "article", __doc__)
    siblings = [sibling for sibling in list_siblings() if find_interpreter(sibling)]
    cases = [{"sibling": sibling, "what": what, "precision": precision, "batch": batch}
             for batch in BATCHES for precision in ("fp32", "bf16") for sibling in siblings
             for what in ("stock_training", "training")]
    with prepare_bench("python -m shared.bench.article") as bench:
        kept = measure_in_rounds(options, cases, lambda case: bench(case["sibling"], case["what"], 2, [
            f"dataset.limit_train={IMAGES + 20}", "dataset.val_fraction=0.03", "augment.crop_padding=4",
            "augment.flip=true", f"train.batch_size={case['batch']}", "train.epochs=2", "optimizer.name=adam",
            "optimizer.lr=0.001", "optimizer.weight_decay=0", "schedule.name=step", "schedule.warmup_epochs=0",
            f"hardware.precision={case['precision']}", "tracking.mode=disabled"]))
    print_table(options, "bench-article", kept, tabulate(kept["measurements"]))


def tabulate(measurements: list[Measurement]) -> Table:
    """A row for each way to train in each precision, and the article's own figures."""
    columns = [f"batch {batch}: s per epoch, from {IMAGES // batch} steps" for batch in BATCHES]
    last = f"batch {BATCHES[-1]}: "
    table = Table(["", "precision", *columns, f"{last}more in the first epoch, s", f"{last}peak GiB"], [])
    names = ("sibling", "what", "precision")
    for sibling, what, precision in dict.fromkeys(tuple(one[name] for name in names) for one in measurements):
        case = {"sibling": sibling, "what": what, "precision": precision}
        found = {batch: select(measurements, case | {"batch": batch}) for batch in BATCHES}
        epochs = [format_spread([one["later_seconds"] / one["steps"] * (EPOCH // batch) for one in rounds])
                  if rounds else "" for batch, rounds in found.items()]
        larger = found[BATCHES[-1]]
        table.rows.append([
            STOCK[sibling] if what == "stock_training" else f"{sibling}_project", precision, *epochs,
            format_spread([one["first_seconds"] - one["later_seconds"] for one in larger], 1) if larger else "",
            f"{statistics.median(one['peak_memory_gib'] for one in larger):.1f}" if larger else ""])
    table.rows.extend([f"the article's {name}", "", str(small), str(large), "", f"{memory} GB"]
                      for name, (small, large, memory) in ARTICLE.items())
    return table


if __name__ == "__main__":
    report_errors(lambda: main(sys.argv[1:]))
