"""The model card: Markdown under a header of metadata that the Hugging Face hub reads.

https://huggingface.co/docs/hub/model-cards
"""

import os
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from shared.artifacts.card.loading import show_loading
from shared.artifacts.card.preprocessing import list_steps
from shared.artifacts.card.timm_format import has_small_stem
from shared.data.definition import Definition
from shared.data.definitions import find_definition
from shared.machine.console import Table, format_percent
from shared.runs.records import SavedRun, is_number, read_json, read_run
from shared.runs.trained import Trained
from shared.scores.summary import compute_interval
from shared.weights.file import Weights

TASK = "image-classification"
# Of scores.json: what a score is called, and whether it is a share.
FURTHER = {"macro_f1": ("F1, mean over classes", True), "brier": ("Brier score, 0 to 2", False),
           "calibration_error": ("calibration error", True),
           "temperature": ("temperature that was fitted on validation images", False),
           "scaled_calibration_error": ("calibration error of softmax(logits / temperature)", True)}
FRAMEWORKS = {"lightning": "PyTorch Lightning", "keras": "Keras"}
# Our names of data sets, and theirs on the hub.
HUB_IDS = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100",
           "fashion_mnist": "zalando-datasets/fashion_mnist", "imagenette": "frgfm/imagenette"}
OPEN = "TO BE FILLED IN"  # where only the owner of the model knows what to write


def find_run(trained: Trained) -> SavedRun | None:
    """The run whose scores are those of the weights, which may be unfinished; None for weights that lie alone."""
    folder = trained.folder
    if folder is None or trained.weights.name != "best.safetensors" or not (folder / "run.json").exists():
        return None
    return read_run(folder)


def write_card(trained: Trained, run: SavedRun | None, weights: Weights, facts: dict[str, Any] | None = None,
               use: list[str] | None = None) -> str:
    """The text of README.md.

    `run` has the scores of the weights, `facts` are what config.json holds; either may be None. `use` are the
    paragraphs that tell how an export is loaded and what it takes, where the card is not of the weights themselves.
    """
    dataset = trained.config.dataset
    definition = find_definition(dataset.name, dataset.variant)
    name = f"{trained.config.model.name} on {name_dataset(definition, dataset.name)}"
    blocks = [f"---\n{build_metadata(trained, run, facts, definition).to_yaml()}\n---", f"# {name}",
              describe_model(trained, run, weights, use is not None),
              "## Scores", *describe_scores(run), *describe_calibration(run),
              "## Data", *describe_data(trained, run, definition), "## Training", describe_training(trained, run),
              *(use or ["## Preprocessing", *list_steps(trained, facts), "## How to load it",
                        *show_loading(trained, facts)]),
              "## Limits", list_limits(trained, run, use is not None), "## Licence",
              f"Of these weights: {OPEN} by whoever publishes them, here and in the header, which says `other` until "
              f"then. Of the data: {OPEN if is_own(definition) else definition.licence}."]
    return "\n\n".join(blocks) + "\n"


def is_own(definition: Definition) -> bool:
    """Whether the data are a folder of the user's, of which a reader elsewhere knows nothing."""
    if definition.hub:
        return os.path.isdir(os.path.expanduser(definition.hub.path)) or definition.hub.path.startswith(("/", "~", "."))
    return not definition.members and not definition.reader


def name_dataset(definition: Definition, name: str) -> str:
    """What a reader is told: a name, and no folder of this machine."""
    if is_own(definition):
        return "a folder of images"
    return definition.hub.path if definition.hub else name


def find_hub_id(definition: Definition, name: str) -> str | None:
    """The data set's owner/name on the hub; None where it is not there."""
    if is_own(definition):
        return None
    return definition.hub.path if definition.hub else HUB_IDS.get(name)


def build_metadata(trained: Trained, run: SavedRun | None, facts: dict[str, Any] | None,
                   definition: Definition) -> ModelCardData:
    name = name_dataset(definition, trained.config.dataset.name)
    hub_id = find_hub_id(definition, trained.config.dataset.name)
    results = None
    if run and (accuracy := run.get_score("test/accuracy")) is not None:
        results = [EvalResult(task_type=TASK, dataset_type=hub_id or trained.config.dataset.name,
                              dataset_name=name, dataset_split="test", metric_type="accuracy",
                              metric_name="top-1 accuracy", metric_value=accuracy)]
    return ModelCardData(
        library_name="timm" if facts else None, license="other", license_name="to-be-filled-in", pipeline_tag=TASK,
        tags=[TASK, "lightning-keras-template", *(["timm"] if facts else [])],
        datasets=[hub_id] if hub_id else None, metrics=["accuracy"] if results else None,
        model_name=run.name if run else trained.weights.stem, eval_results=results)


def describe_model(trained: Trained, run: SavedRun | None, weights: Weights, is_export: bool) -> str:
    colours = "grey images" if trained.channels == 1 else "colour images"
    by = f" It was trained with {FRAMEWORKS[run.framework]}." if run else ""
    numbers = sum(tensor.size for name, tensor in weights.items()
                  if not name.endswith(("running_mean", "running_var")))
    names = "" if is_export else " The weights have the names and the layout of PyTorch."
    return (f"`{trained.config.model.name}` with {numbers:,} parameters tells {colours} of {trained.image_size} x "
            f"{trained.image_size} pixels apart into {len(trained.classes)} classes.{by}{names}\n\n"
            "<details><summary>The classes, in the order of the logits</summary>\n\n"
            + "\n".join(f"{number}. {escape(name)}" for number, name in enumerate(trained.classes)) + "\n\n</details>")


def escape(text: str) -> str:
    """`text` as Markdown shows it literally, also in a table."""
    return "".join(f"\\{sign}" if sign in r"\`*_[]<>|#&" else sign for sign in text)


def describe_scores(run: SavedRun | None) -> list[str]:
    if run is None:
        return ["Not known: these weights lay alone, without the folder of a finished run."]
    rows = []
    for split, told in (("test", "test"), ("val", "validation")):
        accuracy, count = run.get_score(f"{split}/accuracy"), run.record.get(f"sizes.{split}")
        if accuracy is None or not count:
            continue
        low, high = compute_interval(round(accuracy * count), count)
        loss = run.get_score(f"{split}/loss")
        rows.append([told, f"{count:,}", format_percent(accuracy), f"{100 * low:.2f} to {format_percent(high)}",
                     "-" if loss is None else f"{loss:.4f}"])
    table = Table(["images", "number", "top-1 accuracy", "95 % interval", "cross-entropy"], rows)
    best = run.get_score("best_epoch")
    return [table.to_markdown(),
            "The interval is Wilson's: it covers the chance in which images were drawn for the test, not another seed "
            "of the training. The validation images chose the epoch"
            + (f" ({best})" if best is not None else "") + ", so their score is somewhat too good."]


def read_further_scores(run: SavedRun | None) -> dict[str, float]:
    """What `shared.scores` has left in the run folder, as far as it is a number; empty for older runs."""
    if run is None or not (run.folder / "scores.json").is_file():
        return {}
    return {name: value for name, value in read_json(run.folder / "scores.json").items() if is_number(value)}


def describe_calibration(run: SavedRun | None) -> list[str]:
    found = read_further_scores(run)
    rows = [[title, format_percent(found[name]) if is_share else f"{found[name]:.4f}"]
            for name, (title, is_share) in FURTHER.items() if name in found]
    return [tabulate(rows)] if rows else []


def describe_data(trained: Trained, run: SavedRun | None, definition: Definition) -> list[str]:
    dataset = trained.config.dataset
    own = is_own(definition)
    rows = [["data set", name_dataset(definition, dataset.name)], ["source", OPEN if own else definition.source],
            ["licence", OPEN if own else definition.licence]]
    if definition.paper:
        rows.append(["paper", definition.paper])
    if run:
        sizes = [f"{run.record[f'sizes.{split}']:,} {told}" for split, told in
                 (("train", "training"), ("val", "validation"), ("test", "test")) if f"sizes.{split}" in run.record]
        rows.append(["images", ", ".join(sizes)])
    return [tabulate(rows)]


def tabulate(rows: list[list[str]]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {escape(str(value))} |" for name, value in rows)])


def describe_training(trained: Trained, run: SavedRun | None) -> str:
    config = trained.config
    train, optimizer, augment = config.train, config.optimizer, config.augment
    pretrained = config.model.pretrained.lower()
    start = {"false": "drawn from the seed", "true": "the published checkpoint"}.get(pretrained, "a checkpoint")
    rows = [
        ["start", "earlier weights" if config.init_from else start],
        ["epochs", str(train.epochs)],
        ["batch size", str(train.batch_size)],
        ["optimizer", f"{optimizer.name}, learning rate {optimizer.lr:g}, weight decay {optimizer.weight_decay:g}"],
        ["schedule", config.schedule.name],
        ["epochs of warm-up", f"{config.schedule.warmup_epochs:g}"],
        ["loss", f"{train.loss}, label smoothing {train.label_smoothing:g}"],
        ["augmentation", ", ".join(filter(None, [
            f"crop {augment.crop}", augment.flip and "flip", augment.mixup_alpha and f"mixup {augment.mixup_alpha:g}",
            augment.cutmix_alpha and f"CutMix {augment.cutmix_alpha:g}",
            augment.policy != "none" and augment.policy]))],
        ["moving average of the weights", f"{train.ema_decay:g}" if train.ema_decay else "none"],
        ["lookahead", f"every {train.lookahead_every} steps" if train.lookahead_every else "none"],
        ["test-time augmentation", config.evaluate.tta],
        ["seed", str(config.seed)],
    ]
    if run:
        record = run.record
        versions = ("torch", "lightning") if run.framework == "lightning" else ("tensorflow", "keras")
        rows += [["device and precision", f"{record.get('device', '-')}, {record.get('precision', '-')}"],
                 ["versions", ", ".join(f"{name} {record[f'versions.{name}']}" for name in versions
                                        if f"versions.{name}" in record) or "-"],
                 ["revision of lightning-keras-template", (record.get("git.revision") or "-")[:12]
                  + (" with changes" if record.get("git.dirty") else "")]]
        if seconds := run.get_score("time/train_s"):
            rows.append(["time", f"{seconds / 60:.1f} minutes"])
    return tabulate(rows)


def list_limits(trained: Trained, run: SavedRun | None, is_export: bool) -> str:
    points = [
        f"It answers with one of its {len(trained.classes)} classes whatever the image shows; it has no answer for "
        "\"none of these\".",
        f"It sees {trained.image_size} x {trained.image_size} pixels of the central square and nothing finer.",
        "The scores hold for images like those of the test. Of other cameras, places or times they say nothing.",
        "Its probabilities were not calibrated: they say which class is likelier, not how often it is right"
        + ("; the calibration error says how far off they are." if "calibration_error" in read_further_scores(run)
           else "."),
    ]
    if has_small_stem(trained) and not is_export:
        points.insert(0, f"timm's `{trained.config.model.name}` has other first layers, so `timm.create_model` alone "
                         "cannot take these weights: \"How to load it\" shows the lines that replace them.")
    if run:
        points.append("The scores are of a single run; another seed gives somewhat other ones.")
    points.append(f"What it is for and what not, and whom a mistake harms: {OPEN}.")
    return "\n".join(f"- {point}" for point in points)
