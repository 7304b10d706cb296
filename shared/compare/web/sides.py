"""Which runs are held against which others, and in which groups their curves are drawn."""

from dataclasses import dataclass

from shared.compare.verdict import INCIDENTAL, format_value
from shared.errors import shorten
from shared.runs.records import FRAMEWORKS, MOST_VARIED, SavedRun, label_runs

# Colours that are seen on white and on nearly black paper, for up to five groups of a sibling.
SHADES = {"lightning": ("#0072B2", "#6C63D9", "#1F8A80", "#7A8FB0", "#3F7FD1"),
          "keras": ("#D55E00", "#B8860B", "#C2407A", "#B4583A", "#C77C5C")}


@dataclass(frozen=True)
class Side:
    """Runs that are one party of a comparison; `places` are theirs among all runs."""

    name: str
    places: list[int]

    @property
    def title(self) -> str:
        return self.name + (f", {len(self.places)} runs" if len(self.places) > 1 else "")


@dataclass(frozen=True)
class Group:
    """Finished runs of a sibling that differ in their seed alone, or a single run."""

    name: str
    framework: str
    colour: str
    places: list[int]


def form_sides(runs: list[SavedRun]) -> list[Side]:
    """The siblings where there are runs of both, else the two runs of a pair, else all runs as one side."""
    names = label_runs(runs)
    own = [(framework, [place for place, run in enumerate(runs) if run.framework == framework])
           for framework in FRAMEWORKS]
    here = [(framework, places) for framework, places in own if places]
    if len(here) == 1 and len(runs) == 2:
        return [Side(name, [place]) for place, name in enumerate(names)]
    return [Side(names[places[0]] if len(places) == 1 else framework, places) for framework, places in here]


def form_groups(runs: list[SavedRun]) -> list[Group]:
    """The groups in which the runs are drawn, in their order, each with a name and a colour of its own."""
    kept = [{key: format_value(value) for key, value in run.config.items()
             if key not in (*INCIDENTAL, "seed") and not key.startswith("tracking.")} for run in runs]
    found: dict[tuple, list[int]] = {}
    for place, run in enumerate(runs):
        alone = () if run.finished else (place,)  # its curves end early, so they have no mean with those of others
        found.setdefault((run.framework, *alone, *sorted(kept[place].items())), []).append(place)
    labels, groups = label_runs(runs), []
    for places in found.values():
        framework = runs[places[0]].framework
        others = [group for group in found.values() if runs[group[0]].framework == framework]
        varied = [key for key in kept[places[0]] if len({kept[group[0]].get(key) for group in others}) > 1]
        name = labels[places[0]]
        if len(places) > 1:
            name = " ".join([framework, *(f"{key}={kept[places[0]][key]}" for key in varied[:MOST_VARIED])])
            seeds = len({runs[place].seed for place in places})
            name += f", {seeds} seeds" if seeds == len(places) else f", {len(places)} runs"
        shades = SHADES[framework]
        number = sum(group.framework == framework for group in groups)
        groups.append(Group(shorten(name), framework, shades[number % len(shades)], places))
    return groups
