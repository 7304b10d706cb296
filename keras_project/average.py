"""Averaged weights: `train.ema_decay`."""

import keras
import tensorflow as tf
from keras.callbacks import Callback
from keras.ops import convert_to_numpy

from keras_project.models import neutral_weights
from shared.config import Config
from shared.training.schedule import tabulate_average_decays
from shared.weights.file import Weights


class Average(Callback):
    """Keeps an average of all weights, `train.ema_decay`, and puts it in their place during validation.

    After each step, average += (1 - decay) (weight - average). Keras' own `use_ema` leaves BatchNorm's statistics out,
    counts each part of an accumulated batch as a step, and starts frozen weights at 0
    (keras/src/optimizers/base_optimizer.py).
    """

    def __init__(self, config: Config, steps: int):
        super().__init__()
        self.shares = 1 - tabulate_average_decays(config, steps)
        self.averaged: list[keras.Variable] = []

    def set_model(self, model: keras.Model) -> None:
        """Start the averages at the model's weights. `fit` calls this, and so does `load_checkpoint`, first."""
        super().set_model(model)
        if self.averaged:
            return
        self.averaged = [one for one in model.variables if keras.backend.is_float_dtype(one.dtype)]
        with model.distribute_strategy.scope():
            self.averages = [keras.Variable(convert_to_numpy(one), dtype=one.dtype, trainable=False)
                             for one in self.averaged]
        self.move = tf.function(self.move_averages)

    def variables(self) -> dict[str, keras.Variable]:
        """The averages by the names that they have in a checkpoint."""
        return {f"optimizer/{variable.path.replace('/', '_')}_average": average
                for variable, average in zip(self.averaged, self.averages, strict=True)}

    def move_averages(self, share: tf.Tensor) -> None:
        strategy = self.model.distribute_strategy

        def move(average: tf.Variable, weight: tf.Variable, share: tf.Tensor) -> None:
            average.assign_add(tf.cast(share, average.dtype) * (weight - average))
        for variable, average in zip(self.averaged, self.averages, strict=True):
            strategy.extended.update(average.value, move, args=(variable.value, share), group=False)

    def swap(self) -> None:
        """Exchange the values of weights and averages."""
        for variable, average in zip(self.averaged, self.averages, strict=True):
            value = convert_to_numpy(variable)
            variable.assign(convert_to_numpy(average))
            average.assign(value)

    def get_weights(self) -> Weights:
        """The averages, under the weights' neutral names."""
        self.swap()
        weights = neutral_weights(self.model)
        self.swap()
        return weights

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.step = int(convert_to_numpy(self.model.optimizer.iterations))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        step = int(convert_to_numpy(self.model.optimizer.iterations))
        if step != self.step:  # that was the batch's last part
            with self.model.distribute_strategy.scope():
                self.move(tf.constant(self.shares[step - 1]))
        self.step = step

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.swap()

    def on_test_end(self, logs: dict | None = None) -> None:
        self.swap()
