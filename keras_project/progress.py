"""Progress bars."""

from keras.callbacks import Callback
from tqdm import tqdm


class ProgressBars(Callback):
    """A progress bar for each pass over the data, on stderr, cleared after the pass.

    `steps` is the number of batches in an epoch.
    """

    def __init__(self, steps: int):
        super().__init__()
        self.steps, self.bar = steps, None

    def start_bar(self, name: str, total: int | None) -> None:
        self.bar = tqdm(total=total, desc=name, unit="batch", leave=False)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.start_bar(f"epoch {epoch + 1}", self.steps)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.bar.set_postfix(loss=f"{float(logs['loss']):.4f}", refresh=False)
        self.bar.update(batch + 1 - self.bar.n)

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.bar.close()
        self.start_bar("validation", None)

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.bar.update()

    def on_test_end(self, logs: dict | None = None) -> None:
        self.bar.close()

    def on_predict_begin(self, logs: dict | None = None) -> None:
        self.start_bar("predict", None)

    def on_predict_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.bar.update()

    def on_predict_end(self, logs: dict | None = None) -> None:
        self.bar.close()
