"""Averaged weights: `train.ema_decay`."""

from keras.callbacks import Callback

from keras_project.models import neutral_weights
from keras_project.optim import update_rule
from shared.weights.file import Weights


class Average(Callback):
    """Puts the average of all weights, `train.ema_decay`, which the optimizer keeps, in their place during validation.
    """

    def on_test_begin(self, logs: dict | None = None) -> None:
        update_rule(self.model.optimizer).swap_averages()

    def on_test_end(self, logs: dict | None = None) -> None:
        update_rule(self.model.optimizer).swap_averages()

    def get_weights(self) -> Weights:
        update_rule(self.model.optimizer).swap_averages()
        weights = neutral_weights(self.model)
        update_rule(self.model.optimizer).swap_averages()
        return weights
