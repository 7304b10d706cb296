"""torchmetrics' default accuracy, the mean of the classes' accuracies."""

from lightning_project import classifier

original = classifier.MulticlassAccuracy
classifier.MulticlassAccuracy = lambda classes, average: original(classes, average="macro")
