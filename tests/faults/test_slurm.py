"""Two tasks of SLURM train what one process does. `make test-slow` starts two processes by torchrun and TF_CONFIG."""

import pytest

from shared.machine.interpreters import is_installed, list_siblings
from tests.trainings import assert_close_training, only_run, run, slurm, wait

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("sibling", list_siblings())
def test_two_tasks_train_what_one_process_does(tmp_path, report, sibling):
    if not is_installed(sibling):
        pytest.skip(f"the {sibling} sibling is not installed")
    whole = run(sibling, tmp_path / "whole")
    assert whole.code == 0, whole.err[-2000:]
    ended = [wait(process) for process in slurm(sibling, tmp_path / "slurm")]
    assert [one.code for one in ended] == [0, 0], ended[-1].err[-2000:]
    assert "".join(one.out for one in ended).count("epoch 3/3") == 1
    assert_close_training(only_run(tmp_path / "whole", sibling), only_run(tmp_path / "slurm", sibling))
    report("two tasks of SLURM train what one process does: both siblings", 1, 1)
