"""Lightning's loggers lead into the run's records, so that stock callbacks which need a logger work.

PyTorch Lightning alone has such an object between callbacks and trackers; a Keras callback writes into `logs`.
"""

from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from shared.training.recorder import Recorder


class RecorderLogger(Logger):
    """Hands the recorder what is logged for single steps, by `self.log(..., on_step=True)` or by a callback such as
    LearningRateMonitor. Metrics of whole epochs reach the recorder through the callback `RecorderCallback`, which sets
    `within_epoch` while an epoch's training is going on."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder, self.within_epoch = recorder, False

    @property
    def name(self) -> str:
        return self.recorder.run.framework

    @property
    def version(self) -> str:
        return self.recorder.run.name

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        is_lightnings_own = "epoch" in metrics  # Lightning adds it to what the module has logged
        if is_lightnings_own and not self.within_epoch:
            return
        found = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        if found:
            self.recorder.log_metrics(found)

    def log_hyperparams(self, *arguments: Any, **more: Any) -> None:
        """The run folder has the whole config already."""
