"""A stand-in for the run of W&B's client."""

from unittest import mock


class FakeRun:
    """Remembers what W&B is told, and raises at the calls that `failing` names."""

    def __init__(self, failing=()):
        self.failing, self.rows, self.axes, self.status, self.summary = failing, [], [], None, {}
        self.artifacts = []

    def check(self, name):
        if name in self.failing:
            raise RuntimeError(f"{name} is broken\nand a second line")

    def define_metric(self, *names, **settings):
        self.check("define_metric")
        self.axes.append((names, settings))

    def log(self, row):
        self.check("log")
        self.rows.append(row)

    def log_artifact(self, artifact):
        self.check("log_artifact")
        self.artifacts.append(artifact)
        return mock.Mock()

    def finish(self, exit_code):
        self.check("finish")
        self.status = exit_code
