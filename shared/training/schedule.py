"""The learning rate and the decay of averaged weights at every step, as tables that both siblings look up."""

import numpy as np

from shared.config import Config


def is_frozen(config: Config, epoch: int) -> bool:
    """Whether all but the head stays as it is in an epoch, counted from 0."""
    return config.model.freeze == "backbone" and (not config.train.unfreeze_epoch
                                                  or epoch < config.train.unfreeze_epoch)


def tabulate_rate_factors(config: Config, steps: int) -> np.ndarray:
    """What multiplies `optimizer.lr` at each of `train.epochs` x `steps` training steps, (total,) float64.

    Warm-up rises linearly and reaches 1 with its last step (arXiv:1706.02677, section 2.2). Cosine then falls from 1
    towards `final_factor` over the steps that remain, without restarts (arXiv:1608.03983, equation 5). Step drops at
    whole epochs counted from the start of training, warm-up included.
    """
    settings = config.schedule
    total = config.train.epochs * steps
    warmup = round(settings.warmup_epochs * steps)
    step = np.arange(total)
    if settings.name == "constant":
        factors = np.ones(total)
    elif settings.name == "step":
        factors = settings.step_factor ** (step // steps // settings.step_epochs).astype(np.float64)
    else:
        progress = (step - warmup) / max(total - warmup, 1)
        factors = settings.final_factor + (1 - settings.final_factor) * 0.5 * (1 + np.cos(np.pi * progress))
    return np.where(step < warmup, np.minimum((step + 1) / max(warmup, 1), 1.0), factors)


def tabulate_rates(config: Config, steps: int) -> np.ndarray:
    """The learning rate of each training step, (total,) float64."""
    return config.optimizer.lr * tabulate_rate_factors(config, steps)


def tabulate_average_decays(config: Config, steps: int) -> np.ndarray:
    """What share of itself the average of the weights keeps at each training step, (total,) float64.

    After the first step the average is the weights. Then at most (1 + step) / (10 + step), so that a short training
    does not average its beginning (https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage).
    """
    step = np.arange(config.train.epochs * steps)
    return np.where(step == 0, 0.0, np.minimum(config.train.ema_decay, (1 + step) / (10 + step)))
