"""Copies of the weights beside the weights: the moving average of `train.ema_decay`, and those of
`train.lookahead_every`."""

from typing import ClassVar

import keras
import numpy as np
from keras import ops
from keras.callbacks import Callback
from keras.ops import convert_to_numpy

from keras_project.executor import Tensor, executor
from keras_project.models import neutral_weights
from shared.config import Config
from shared.training.schedule import tabulate_average_decays, tabulate_lookahead
from shared.weights.file import Weights


class WeightCopies(Callback):
    """Keeps a copy of all weights, BatchNorm's statistics too, and moves it towards them after each step.

    After step i, copy += shares[i] (weight - copy); where `shares[i]` is not a number nothing happens.
    """

    kind: ClassVar[str]  # how a copy is called in a checkpoint

    def __init__(self, shares: np.ndarray):
        super().__init__()
        self.shares = shares
        self.copied: list[keras.Variable] = []

    def set_model(self, model: keras.Model) -> None:
        """Start the copies at the model's weights. `fit` calls this, and so does `load_checkpoint`, first."""
        super().set_model(model)
        if self.copied:
            return
        self.copied = [one for one in model.variables if keras.backend.is_float_dtype(one.dtype)]
        with executor.scope_of(model):
            self.copies = [keras.Variable(convert_to_numpy(one), dtype=one.dtype, trainable=False)
                           for one in self.copied]
        self.move = executor.compile_update(self.move_all)

    def variables(self) -> dict[str, keras.Variable]:
        """The copies by the names that they have in a checkpoint."""
        return {f"optimizer/{variable.path.replace('/', '_')}_{self.kind}": copy
                for variable, copy in zip(self.copied, self.copies, strict=True)}

    def move_all(self, share: Tensor) -> None:
        for variable, copy in zip(self.copied, self.copies, strict=True):
            executor.assign_from(self.model, copy, self.move_one, variable, share)

    def move_one(self, copy: Tensor, weight: Tensor, share: Tensor) -> Tensor:
        return copy + ops.cast(share, copy.dtype) * (weight - copy)

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.step = int(convert_to_numpy(self.model.optimizer.iterations))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        step = int(convert_to_numpy(self.model.optimizer.iterations))
        if step != self.step and not np.isnan(self.shares[step - 1]):  # that was the batch's last part
            with executor.scope_of(self.model):
                self.move(self.shares[step - 1])
        self.step = step


class Average(WeightCopies):
    """Keeps an average of all weights, `train.ema_decay`, and puts it in their place during validation.

    Keras' own `use_ema` leaves BatchNorm's statistics out, counts each part of an accumulated batch as a step, and
    starts frozen weights at 0 (keras/src/optimizers/base_optimizer.py).
    """

    kind = "average"

    def __init__(self, config: Config, steps: int):
        super().__init__(1 - tabulate_average_decays(config, steps))

    def swap(self) -> None:
        """Exchange the values of weights and averages."""
        for variable, average in zip(self.copied, self.copies, strict=True):
            value = convert_to_numpy(variable)
            variable.assign(convert_to_numpy(average))
            average.assign(value)

    def get_weights(self) -> Weights:
        """The averages, under the weights' neutral names."""
        self.swap()
        weights = neutral_weights(self.model)
        self.swap()
        return weights

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.swap()

    def on_test_end(self, logs: dict | None = None) -> None:
        self.swap()


class Lookahead(WeightCopies):
    """Every `train.lookahead_every` steps pulls slow weights towards the weights, which go on from there."""

    kind = "slow"

    def __init__(self, config: Config, steps: int):
        super().__init__(1 - tabulate_lookahead(config, steps))

    def move_all(self, share: Tensor) -> None:
        super().move_all(share)
        for variable, slow in zip(self.copied, self.copies, strict=True):
            executor.assign_from(self.model, variable, lambda weight, slow: slow, slow)
