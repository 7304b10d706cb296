"""The trials of a sweep: which comes next, and what becomes of it."""

import socket
import time
from typing import TYPE_CHECKING

from shared.errors import UserError
from shared.machine.console import say
from shared.machine.interpreters import require_interpreter
from shared.training.sweep.definition import Sweep, make_folder
from shared.training.sweep.space import shorten_value
from shared.training.sweep.studies import (
    begin_trial,
    close_trial,
    explain_store,
    list_trials,
    name_store,
    open_studies,
    open_trial,
    require_optuna,
    suggest_words,
)
from shared.training.sweep.training import Training, run_tasks

if TYPE_CHECKING:
    from optuna import Study, Trial


class TrialTask:
    """A trial of one sibling, whose study hears of each epoch and of the end."""

    def __init__(self, search: "Search", sibling: str, trial: "Trial", training: Training):
        self.sweep, self.study, self.sibling = search.sweep, search.studies[sibling], sibling
        self.trial, self.training = trial, training
        self.reported = set(self.study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        self.pruned = False

    @property
    def title(self) -> str:
        return f"trial {self.trial.number + 1} of {self.sweep.trials}, {self.sibling}"

    def begin(self) -> None:
        values = "  ".join(f"{key}={shorten_value(value)}" for key, value in self.trial.params.items())
        goes_on = " goes on" if self.training.find_run() else ""
        say(f"{self.title}{goes_on}: {values}")
        if self.training.find_result() is None:
            self.training.start()

    def report(self) -> None:
        for epoch, value in self.training.read_epochs():
            if epoch not in self.reported:
                self.reported.add(epoch)
                self.trial.report(value, epoch)

    def look(self) -> None:
        before = len(self.reported)
        self.report()
        if len(self.reported) > before and not self.pruned and self.trial.should_prune():
            self.pruned = True
            self.training.ask_to_stop()

    def describe(self) -> str:
        return f"{self.title}: {self.training.describe_last_epoch()}"

    def end(self) -> None:
        self.report()
        result, run = self.training.find_result(), self.training.find_run()
        if run:
            self.trial.set_user_attr("run", str(run))
        if result is not None:
            self.complete(result)
        elif self.pruned:
            close_trial(self.study, self.trial, "PRUNED")
            say(f"{self.describe()}, pruned: worse than the median at that epoch")
        else:
            reason = self.training.explain_failure()
            self.trial.set_user_attr("error", reason)
            close_trial(self.study, self.trial, "FAIL")
            say(f"{self.title} failed: {reason}")

    def complete(self, result: dict) -> None:
        """Tell the study the metric of the best epoch, whose weights the run has kept."""
        choose = min if self.sweep.direction == "min" else max
        values = [value for _, value in self.training.read_epochs()]
        if not values:
            raise UserError(f"{self.training.find_run()} has finished without {self.sweep.metric} in metrics.jsonl; "
                            "delete the folder to train it again")
        for name in ("test/accuracy", "best_epoch", "time/train_s"):
            self.trial.set_user_attr(name, result.get(name))
        self.study.tell(self.trial, choose(values))
        best = self.study.best_trial
        seconds = time.monotonic() - self.training.started
        say(f"{self.describe()}, finished after {seconds:.0f} s with {choose(values):.4f}; the best so far is "
            f"{best.value:.4f}, of trial {best.number + 1}")


class Search:
    """Takes up what was left running, then begins new trials until each sibling has had as many as were asked for."""

    def __init__(self, sweep: Sweep, studies: dict[str, "Study"]):
        self.sweep, self.studies = sweep, studies
        self.mine: set[tuple[str, int]] = set()  # trials that this process has or had

    def take(self) -> TrialTask | None:
        """The next trial, which this process holds; None where there is none left to begin."""
        for sibling, study in self.studies.items():
            for frozen in list_trials(study, "RUNNING"):
                if (sibling, frozen.number) not in self.mine and (task := self.take_up(sibling, frozen.number)):
                    return task
        while True:
            # The sibling that is behind comes first, so that trials of the same values follow each other.
            sibling = min(self.studies, key=lambda name: len(list_trials(self.studies[name])))
            if len(list_trials(self.studies[sibling])) >= self.sweep.trials:
                return None
            trial = begin_trial(self.studies[sibling])
            if task := self.prepare(sibling, trial):
                return task

    def take_up(self, sibling: str, number: int) -> TrialTask | None:
        """A trial that is marked as running; None where it does run, or belongs to a machine with other folders."""
        study = self.studies[sibling]
        host = study.get_trials(deepcopy=False)[number].user_attrs.get("host", socket.gethostname())
        group = self.sweep.folder / f"{self.sweep.name}_{number:03d}"
        is_here = host == socket.gethostname() or group.is_dir()
        return self.prepare(sibling, open_trial(study, number)) if is_here else None

    def prepare(self, sibling: str, trial: "Trial") -> TrialTask | None:
        """The task of a trial; None where another process has it, or its values make no config."""
        words = suggest_words(self.sweep, trial)
        self.mine.add((sibling, trial.number))
        try:
            config = self.sweep.build_trial(trial.number, words)
        except UserError as error:
            close_trial(self.studies[sibling], trial, "FAIL")
            say(f"trial {trial.number + 1} of {self.sweep.trials}, {sibling} failed: {error}")
            return None
        given = [str(self.sweep.folder / "config.yaml"), *(f"{key}={word}" for key, word in words.items()),
                 f"experiment={config.experiment}", f"output_dir={config.output_dir}"]
        training = Training(sibling, config, given)
        if not training.hold():
            return None
        if trial.number not in {one.number for one in list_trials(self.studies[sibling], "RUNNING")}:
            training.release()  # another process has ended it in the meantime
            return None
        return TrialTask(self, sibling, trial, training)


def run_search(sweep: Sweep, storage: str | None, at_once: int) -> None:
    """Run the trials of a sweep that are left, and write what has been found.

    Raises:
        UserError: where the store, the folder or an interpreter will not do, or nothing has finished.
        StoppedError: after SIGTERM or SIGINT.
    """
    require_optuna()
    for sibling in sweep.siblings:
        require_interpreter(sibling)
    address = name_store(sweep, storage)
    with explain_store(address):
        studies = open_studies(sweep, address)
        make_folder(sweep)  # now that its config is known to be that of the trials there are
        left = sum(max(sweep.trials - len(list_trials(study, "COMPLETE", "PRUNED", "FAIL")), 0)
                   for study in studies.values())
        say(f"sweep {sweep.name}: {sweep.trials} trials in {' and '.join(sweep.siblings)}, {left} trainings left; "
            f"store: {address}")
        run_tasks(Search(sweep, studies).take, at_once)
        from shared.training.sweep.report import write_report  # here, because it draws

        write_report(sweep, studies, address)
