"""The learning rate, and the decay of averaged weights, at each training step: tables that both siblings look up."""

import numpy as np

from shared.config import Config


def is_frozen(config: Config, epoch: int) -> bool:
    """Whether only the head trains in `epoch`, counted from 0."""
    return config.model.freeze == "backbone" and (not config.train.unfreeze_epoch
                                                  or epoch < config.train.unfreeze_epoch)


def list_rate_factors(config: Config) -> dict[str, float]:
    """The keys of the section `optimizer` that give some parameters another learning rate, with their values."""
    settings = config.optimizer
    return {"backbone_lr_factor": settings.backbone_lr_factor, "norm_bias_lr_factor": settings.norm_bias_lr_factor}


def tabulate_rate_factors(config: Config, steps: int) -> np.ndarray:
    """The factor of `optimizer.lr` at each training step, (train.epochs x `steps`,) float64; `steps` is per epoch.

    Warm-up rises linearly from `initial_factor` and reaches 1 at its last step (arXiv:1706.02677, section 2.2). After
    it, over the remaining steps, the cosine falls from 1 towards `final_factor`, without restarts (arXiv:1608.03983,
    equation 5), and so does the triangular schedule, but linearly (arXiv:2404.00498). The step schedule drops after
    whole epochs, counted from the start of training, warm-up included.
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
        left = 1 - progress if settings.name == "triangular" else 0.5 * (1 + np.cos(np.pi * progress))
        factors = settings.final_factor + (1 - settings.final_factor) * left
    rise = np.minimum((step + 1) / max(warmup, 1), 1.0)
    return np.where(step < warmup, settings.initial_factor + (1 - settings.initial_factor) * rise, factors)


def tabulate_rates(config: Config, steps: int) -> np.ndarray:
    """The learning rate at each training step, (train.epochs x `steps`,) float64; `steps` is per epoch."""
    return config.optimizer.lr * tabulate_rate_factors(config, steps)


def tabulate_lookahead(config: Config, steps: int) -> np.ndarray:
    """The share that slow weights keep at each training step, (train.epochs x `steps`,) float64; `steps` is per epoch.

    It is not a number at steps that do not touch them. It grows from 0 to 0.95^5 as the cube of the share of steps done
    (arXiv:2404.00498, and its code); in the paper on Lookahead it is constant (arXiv:1907.08610). Where the last step
    is not one of them, the training ends with the slow weights as they are.
    """
    total, every = config.train.epochs * steps, config.train.lookahead_every
    step = np.arange(1, total + 1)
    shares = np.where(step % every == 0, 0.95**5 * (step / total)**3, np.nan)
    if np.isnan(shares[-1]):
        shares[-1] = 1.0
    return shares


def tabulate_average_decays(config: Config, steps: int) -> np.ndarray:
    """The decay of the weights' moving average at each training step, (train.epochs x `steps`,) float64.

    It is 0 at the first step, so that the average starts as the weights after it. Then it is `train.ema_decay`, but at
    most (1 + step) / (10 + step), so that the first weights count little in the average of a short training
    (https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage).
    """
    step = np.arange(config.train.epochs * steps)
    return np.where(step == 0, 0.0, np.minimum(config.train.ema_decay, (1 + step) / (10 + step)))
