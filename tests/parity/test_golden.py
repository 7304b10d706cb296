"""The first losses of the quick start are those that were once written down, so that an upgrade that moves numbers is
seen. `python tests/parity/test_golden.py` writes them down anew, after a change that is meant to move them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).with_name("golden.json")
REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 20
# In fp64, in which the siblings differ by 4e-15 of a loss after 20 steps, and which hardly depends on the processor. In
# fp32 they are 0.3 apart by then.
WORDS = ("hardware.precision=fp64", "hardware.threads=1", "hardware.accelerator=cpu", "train.epochs=1",
         f"debug.limit_batches={STEPS}", "tracking.log_every_steps=1", "tracking.mode=disabled")
TOLERANCE = 1e-9  # relative


def list_losses(sibling: str, folder: Path) -> list[float]:
    """The losses of the first steps of the quick start, which is trained into `folder` as it is typed."""
    subprocess.run([sys.executable, f"{sibling}_project/train.py", *WORDS, f"output_dir={folder}"], cwd=REPOSITORY,
                   capture_output=True, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    (metrics,) = folder.glob("*/*/metrics.jsonl")
    rows = map(json.loads, metrics.read_text(encoding="utf-8").splitlines())
    return [row["train/loss_step"] for row in rows if "train/loss_step" in row]


@pytest.mark.slow
def test_the_quick_start_has_the_losses_that_were_written_down(sibling, tmp_path):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert len(golden["losses"]) == STEPS
    assert list_losses(sibling.name, tmp_path) == pytest.approx(golden["losses"], rel=TOLERANCE, abs=0)


if __name__ == "__main__":
    import tempfile

    sys.path.insert(0, str(REPOSITORY))
    from shared.machine.interpreters import is_installed, list_siblings
    from shared.machine.versions import list_versions

    first = next(filter(is_installed, list_siblings()))
    with tempfile.TemporaryDirectory() as work:
        losses = list_losses(first, Path(work))
    GOLDEN.write_text(json.dumps({"losses": losses, "made with": list_versions()}, indent=2) + "\n", encoding="utf-8")
