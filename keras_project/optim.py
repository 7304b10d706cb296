"""Optimizer and learning rate: one table of optimizers, to which any class of Keras can be added as it is."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_project.executor import Tensor, executor
from keras_project.models import find_entry
from keras_project.training_rules import TrainingRules, unwrap_loss_scale, with_training_rules
from keras_project.update_rules import SGD, Adam, AdamW, Muon
from shared.config import Config
from shared.errors import UserError
from shared.training.schedule import list_rate_factors, tabulate_rates


@keras.saving.register_keras_serializable("keras_project")
class TableSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The shared table of learning rates, looked up by step."""

    def __init__(self, table: list[float] | np.ndarray):
        self.table = np.asarray(table, np.float64)

    def __call__(self, step: Tensor) -> Tensor:
        return ops.convert_to_tensor(self.table)[ops.minimum(ops.cast(step, "int64"), len(self.table) - 1)]

    def get_config(self) -> dict[str, Any]:
        return {"table": self.table.tolist()}


def adam_arguments(config: Config) -> dict[str, Any]:
    settings = config.optimizer
    return {"beta_1": settings.beta1, "beta_2": settings.beta2, "epsilon": settings.eps}


def momentum_arguments(config: Config) -> dict[str, Any]:
    return {"momentum": config.optimizer.momentum, "nesterov": config.optimizer.nesterov}


def lion_arguments(config: Config) -> dict[str, Any]:
    # Python's numbers would become float32 in Keras' class, also where weights are float64.
    return {"beta_1": np.float64(config.optimizer.beta1), "beta_2": np.float64(config.optimizer.beta2)}


def muon_arguments(config: Config) -> dict[str, Any]:
    entry = find_entry(config.model.name)
    return adam_arguments(config) | momentum_arguments(config) | {
        "exclude_layers": (entry.first_kernel.rpartition(".")[0], *entry.heads)}


# `optimizer.name`: a class, and a function of the config that gives the arguments that are this class's own.
# A class of Keras is added as it is: "rmsprop": (keras.optimizers.RMSprop, lambda config: {"rho": 0.99}).
OPTIMIZERS = {
    "sgd": (SGD, momentum_arguments),
    "adam": (Adam, adam_arguments),
    "adamw": (AdamW, adam_arguments),
    "lion": (keras.optimizers.Lion, lion_arguments),
    "muon": (Muon, muon_arguments),
}


def build_optimizer(config: Config, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer with the shared learning rate of each step.

    Raises:
        UserError: where the class does not take what the config asks for.
    """
    settings, parts = config.optimizer, config.train.accumulate
    kind, arguments = OPTIMIZERS[settings.name]
    # Keras asks for the learning rate of each part of a batch, and updates at the last.
    rates = TableSchedule(np.repeat(tabulate_rates(config, steps), parts))
    try:
        return with_training_rules(kind)(
            # The name leads the paths of its variables; Keras' own default counts the optimizers made so far.
            name="optimizer", learning_rate=rates, weight_decay=settings.weight_decay,
            gradient_accumulation_steps=parts if parts > 1 else None, max_norm=config.train.grad_clip,
            head=find_entry(config.model.name).head, backbone_factor=settings.backbone_lr_factor,
            backbone_start=config.train.unfreeze_epoch * steps, norm_bias_factor=settings.norm_bias_lr_factor,
            decay_norm_and_bias=settings.decay_norm_and_bias, **arguments(config))
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer.name={settings.name}: keras' {kind.__name__} refuses its arguments ({error}); "
                        "change the keys of optimizer, or its entry in keras_project/optim.py") from None


def refuse_lost_settings(config: Config, optimizer: keras.optimizers.Optimizer) -> None:
    """Refuse an optimizer that would leave out what the config asks for. To be asked in the strategy's scope.

    Raises:
        UserError: naming the key.
    """
    train, rules = config.train, unwrap_loss_scale(optimizer)
    name, has_rules = type(rules).__name__, isinstance(rules, TrainingRules)
    devices = executor.count_devices()
    own_clipping = next((word for word in ("clipnorm", "clipvalue", "global_clipnorm") if getattr(rules, word)), None)
    remedy = "make it by with_training_rules of keras_project/training_rules.py"
    for is_lost, words in (
        (train.grad_clip and not has_rules, f"train.grad_clip={train.grad_clip:g} is not for a {name} without the "
         f"training rules; {remedy}, or set train.grad_clip=0"),
        (train.grad_clip and own_clipping, f"train.grad_clip={train.grad_clip:g} and {own_clipping} of the optimizer "
         f"both clip; leave {own_clipping} out, or set train.grad_clip=0"),
        *((factor != 1 and not has_rules, f"optimizer.{key}={factor:g} is not for a {name} without the training rules; "
           f"{remedy}, or set optimizer.{key}=1") for key, factor in list_rate_factors(config).items()),
        ((rules.gradient_accumulation_steps or 1) != train.accumulate, f"train.accumulate={train.accumulate}, but the "
         f"optimizer's gradient_accumulation_steps is {rules.gradient_accumulation_steps}; make them agree"),
        (train.accumulate > 1 and devices > 1 and not has_rules, f"train.accumulate={train.accumulate} on {devices} "
         f"devices is not for a {name} without the training rules; {remedy}, or set train.accumulate=1"),
        (rules.use_ema, "the averages of an optimizer's use_ema are not validated and not kept as the best weights; "
         "leave use_ema out and set train.ema_decay"),
    ):
        if is_lost:
            raise UserError(words)
