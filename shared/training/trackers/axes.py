"""The metrics that every row has, so that a dashboard can compare runs whose frameworks count steps differently."""

AXES = ("samples", "epoch", "time/train_s")
