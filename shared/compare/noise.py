"""Whether the siblings' test accuracies differ by more than noise, judged over seeds and over the test images."""

import math

import numpy as np

from shared.compare.statistics import estimate_difference, run_mcnemar_test, summarise
from shared.errors import UserError
from shared.machine.console import Table, format_percent, format_points
from shared.machine.interpreters import list_siblings
from shared.runs.records import FRAMEWORKS, SavedRun


def report_seeds(runs: list[SavedRun]) -> list[Table | str]:
    """Tables and sentences on whether the siblings' test accuracies differ by more than noise.

    `runs` are finished, at most one of a sibling for each seed.

    Raises:
        UserError: where a run has no test accuracy or no predictions, or those of a pair are for different images.
    """
    by_seed = {framework: {run.seed: run for run in runs if run.framework == framework} for framework in FRAMEWORKS}
    for run in runs:
        if run.get_score("test/accuracy") is None:
            raise UserError(f"{run.folder / 'result.json'} has no test/accuracy; leave the run out")
    rows = []
    for framework, own in by_seed.items():
        if own:
            summary = summarise(np.array([run.get_score("test/accuracy") for run in own.values()]))
            spread = "-" if math.isnan(summary.std) else format_percent(summary.std)
            rows.append([framework, str(summary.n), format_percent(summary.mean), spread,
                         f"{format_percent(summary.low)} .. {format_percent(summary.high)}"])
    blocks: list[Table | str] = [Table(["test accuracy", "n", "mean", "std", "min .. max"], rows)]
    if len(rows) == len(list_siblings()) == 1:
        return blocks
    lightning, keras = by_seed["lightning"], by_seed["keras"]
    paired = sorted(lightning.keys() & keras.keys())
    if alone := sorted(lightning.keys() ^ keras.keys()):
        blocks.append("Seeds that only one sibling has, so that nothing pairs with them: "
                      f"{', '.join(map(str, alone))}.")
    if not paired:
        return [*blocks, "No seed was run by both siblings, so nothing can be said about their difference."]
    return blocks + report_difference(paired, lightning, keras) + report_images(paired, lightning, keras)



def report_difference(paired: list[int], lightning: dict[int, SavedRun], keras: dict[int, SavedRun]) -> list[str]:
    """Sentences on the difference of the test accuracies over the seeds in `paired`, which both siblings have."""
    found = estimate_difference(*(np.array([own[seed].get_score("test/accuracy") for seed in paired])
                                for own in (lightning, keras)))
    if found.n == 1:
        return [f"Difference, keras − lightning, in the one paired seed ({paired[0]}): {format_points(found.mean)}.",
                "One seed has no spread: there is no confidence interval, and no difference of any size can be called "
                "real. Run more seeds in both siblings."]
    low, high = found.interval
    said = [f"Mean paired difference, keras − lightning, over {found.n} seeds: {format_points(found.mean)}; "
            f"95 % confidence interval (Student t) {format_points(low)} to {format_points(high)}.",
            "0 lies in the interval: these seeds show no difference between the siblings." if found.includes_zero else
            f"0 lies outside the interval: {'keras' if found.mean > 0 else 'lightning'} is better by more than the "
            "noise between seeds explains."]
    if found.std == 0:
        return [*said, "All seeds differ by the same amount, so the interval has no width. Few seeds can agree by "
                "chance: run more before anything is claimed."]
    return [*said,
            f"The smallest mean difference that could be called real with these {found.n} seeds is "
            f"{100 * found.half_width:.2f} points (half the width of the interval).",
            f"The smallest true difference that {found.n} such seeds find with 80 % probability is "
            f"{100 * found.detectable:.2f} points (paired t test, two-sided, 5 %)."]


def report_images(paired: list[int], lightning: dict[int, SavedRun], keras: dict[int, SavedRun]) -> list[Table | str]:
    """McNemar's test on the test images, for each of the seeds in `paired` and over all of them."""
    rows, right, disagree, p_values = [], [], [], []
    for seed in paired:
        first, second = read_answers(lightning[seed], keras[seed])
        label = lightning[seed].predictions.label
        found = run_mcnemar_test(first == label, second == label)
        right.append((first == label, second == label))
        disagree.append(first != second)
        p_values.append(found.p)
        rows.append([str(seed), f"{len(label):,}", f"{found.only_a:,}", f"{found.only_b:,}",
                     format_percent(disagree[-1].mean()), f"{found.p:.3g}"])
    said: list[Table | str] = []
    if len(paired) > 1:
        pooled = run_mcnemar_test(*(np.concatenate(side) for side in zip(*right, strict=True)))
        disagreement = np.concatenate(disagree)
        rows.append(["pooled", f"{len(disagreement):,}", f"{pooled.only_a:,}", f"{pooled.only_b:,}",
                     format_percent(disagreement.mean()), f"{pooled.p:.3g}"])
        said.append(f"The siblings answer differently on {format_percent(disagreement.mean())} of the test images. By "
                    f"McNemar's test {sum(p < 0.05 for p in p_values)} of {len(paired)} seeds differ at the 5 % level; "
                    "where there is no difference, at most one in twenty does.")
        said.append("The pooled test counts an image once per seed as if these were different images, so its p is too "
                    "small where seeds err on the same ones; the interval over seeds is the figure to rely on.")
    else:
        said.append(f"The siblings answer differently on {format_percent(disagree[0].mean())} of the test images; "
                    f"McNemar's test {'finds' if p_values[0] < 0.05 else 'does not find'} one better than the other at "
                    "the 5 % level. It knows of these two runs only, not of other seeds.")
    return [Table(["seed", "test images", "only lightning right", "only keras right", "disagree", "McNemar p"], rows),
            *said]


def read_answers(first: SavedRun, second: SavedRun) -> tuple[np.ndarray, np.ndarray]:
    """The classes that two runs predict, (n,) int64 each.

    Raises:
        UserError: where a run has no predictions, or the two are not for the same test images.
    """
    for run in (first, second):
        if run.predictions is None:
            raise UserError(f"{run.folder} has no predictions.npz; leave the run out or train it again")
    for name in ("index", "label"):
        one, other = getattr(first.predictions, name), getattr(second.predictions, name)
        if not np.array_equal(one, other):
            raise UserError(f"predictions.npz of {first.name} and {second.name} differ in '{name}', so they are not "
                            "for the same test images and cannot be paired; train both on the same data")
    return first.predictions.logits.argmax(axis=1), second.predictions.logits.argmax(axis=1)
