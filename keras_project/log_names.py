"""The names of metrics in Keras' `logs` and in metrics.jsonl. In Lightning both are the same, and need no such file."""

# Two metrics of `classifier.py`: the loss of the last batch alone, and the loss with plain labels. The loss that Keras
# itself reports for validation has smoothed targets.
LAST_LOSS, PLAIN_LOSS = "last_loss", "plain_loss"


def to_dashboard_name(log_name: str) -> str | None:
    """The name in metrics.jsonl: train/x for x, val/x for val_x, and None for what is not recorded."""
    split, name = ("val", log_name.removeprefix("val_")) if log_name.startswith("val_") else ("train", log_name)
    if name == LAST_LOSS or (split, name) in (("val", "loss"), ("train", PLAIN_LOSS)):
        return None
    return f"{split}/{'loss' if name == PLAIN_LOSS else name}"


def to_log_name(name: str) -> str:
    """The name in Keras' `logs`: the inverse of `to_dashboard_name`."""
    split, _, metric = name.partition("/")
    if split == "train":
        return metric
    return f"val_{PLAIN_LOSS if metric == 'loss' else metric}" if split == "val" else name
