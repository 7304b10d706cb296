"""What stands in every row, so that a dashboard can lay two runs over each other whatever each framework calls a step."""

AXES = ("samples", "epoch", "time/train_s")
