"""Measure training steps in fp32 and in bf16 on the CPU, which hardware.precision=auto has to choose between.

python -m shared.bench.precision [--rounds N] [--out FILE] [--page FILE]

The models are of every kind that is here. Each measurement is of bare steps (forward, backward, update) on one batch of
random images, in a process of its own; fp32 and bf16 take turns. Images are counted per second of CPU time, in one
thread, of which other work on the machine takes less than of the clock's.
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

# Model, pixels, images in a batch, and so many steps that a measurement takes seconds.
MODELS = (("resnet18", 32, 64, 3), ("resnet50", 224, 4, 3), ("efficientnet_b0", 224, 8, 4),
          ("efficientnet_b0", 32, 64, 6), ("vit_tiny", 224, 8, 4), ("airbench", 32, 256, 3))


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments, "precision", __doc__)
    siblings = [sibling for sibling in list_siblings() if find_interpreter(sibling)]
    cases = [{"model": model, "pixels": pixels, "batch": batch, "steps": steps, "sibling": sibling,
              "precision": precision}
             for model, pixels, batch, steps in MODELS for sibling in siblings for precision in ("fp32", "bf16")]
    with prepare_bench("python -m shared.bench.precision") as bench:
        kept = measure_in_rounds(options, cases, lambda case: bench(case["sibling"], "bare_per_core", case["steps"], [
            f"dataset.image_size={case['pixels']}", f"dataset.limit_train={case['batch'] + 100}",
            "dataset.val_fraction=0.05", f"train.batch_size={case['batch']}", f"model.name={case['model']}",
            "hardware.accelerator=cpu", "hardware.threads=1", f"hardware.precision={case['precision']}"]))
    print_table(options, "bench-precision", kept, tabulate(kept["measurements"]))


def tabulate(measurements: list[Measurement]) -> Table:
    """A row for each model in each sibling, with medians and the spread of bf16's share in rounds."""
    table = Table(["model", "pixels", "batch", "sibling", "fp32, images per CPU second", "bf16", "bf16 / fp32"], [])
    names = ("model", "pixels", "batch", "sibling")
    for values in dict.fromkeys(tuple(one[name] for name in names) for one in measurements):
        case = dict(zip(names, values, strict=True))
        fp32, bf16 = ([one["per_core"] for one in select(measurements, case | {"precision": precision})]
                      for precision in ("fp32", "bf16"))
        shares = [half / full for full, half in zip(fp32, bf16, strict=False)]  # of the same round
        table.rows.append([*map(str, values), f"{statistics.median(fp32):.1f}", f"{statistics.median(bf16):.1f}",
                           format_spread(shares, 2)])
    return table


if __name__ == "__main__":
    report_errors(lambda: main(sys.argv[1:]))
