"""Keras' names of what is logged, and ours. Keras alone needs this: Lightning logs under whatever name it is given."""

# The loss of validation has smoothed targets; its plain loss is a metric of its own. See `classifier.py`.
LAST_LOSS, PLAIN_LOSS = "last_loss", "plain_loss"


def to_dashboard_name(log_name: str) -> str | None:
    """train/x for x, val/x for val_x; None for what is not shown."""
    split, name = ("val", log_name.removeprefix("val_")) if log_name.startswith("val_") else ("train", log_name)
    if name == LAST_LOSS or (split, name) in (("val", "loss"), ("train", PLAIN_LOSS)):
        return None
    return f"{split}/{'loss' if name == PLAIN_LOSS else name}"


def to_log_name(name: str) -> str:
    """The inverse of `to_dashboard_name`."""
    split, _, metric = name.partition("/")
    if split == "train":
        return metric
    return f"val_{PLAIN_LOSS if metric == 'loss' else metric}" if split == "val" else name
