"""Which weights a training starts from."""

from collections.abc import Collection
from pathlib import Path

from shared.config import Config
from shared.data.loading import Data
from shared.errors import UserError
from shared.machine.console import say
from shared.machine.files import find_last_checkpoint, find_weight_file
from shared.models import ModelEntry
from shared.weights.file import Weights, read_classes, read_weights, require_matching_tensors
from shared.weights.initial import draw_initial_weights, find_fixed_tensors, has_one_value
from shared.weights.pretrained import adapt_checkpoint, find_checkpoint, is_pretrained
from shared.weights.whitening import compute_whitening


def choose_starting_point(config: Config, entry: ModelEntry, built: Weights, data: Data | None = None,
                          leader: bool = True, untrained: Collection[str] = ()) -> Weights:
    """Where training starts from, in this order:

    1. the run that `resume` names, whose checkpoint later overwrites what is returned here;
    2. `init_from`;
    3. a published checkpoint, `model.pretrained`;
    4. weights drawn from the seed.

    `built` are the weights of the freshly built model, `untrained` the names of those that it does not train; see
    `choose_starting_weights` for the rest.
    """
    if config.resume not in ("none", "auto") and find_last_checkpoint(Path(config.resume).expanduser()):
        return draw_weights(config, entry, built, data, untrained)[0]  # what the run began with may be gone
    weights, source = choose_starting_weights(config, entry, built, data, untrained)
    say(f"starting from {source}{', unless a run is resumed' if config.resume == 'auto' else ''}", leader=leader)
    return weights


def draw_weights(config: Config, entry: ModelEntry, built: Weights, data: Data | None,
                 untrained: Collection[str] = ()) -> tuple[Weights, str]:
    """Weights drawn from the seed, and a line that says so.

    A model of a framework's library keeps the weights that the framework drew.
    """
    line = f"initial weights drawn with seed {config.seed}"
    if entry.framework:
        return built, line
    kept = find_fixed_tensors(built, untrained)
    if entry.whitens:
        kept[entry.first_kernel] = compute_whitening(config, data)
        line += f"; {entry.first_kernel} whitens the training images"
    elif own := [name for name in kept if name not in untrained and not has_one_value(kept[name])]:
        line += (f"; the framework's own values for {', '.join(own[:3])}{' ...' if own[3:] else ''}, for which "
                 "shared/weights/initial.py has no rule; the other sibling may start from others")
    return draw_initial_weights({name: tensor.shape for name, tensor in built.items()}, config.seed, kept), line


def choose_starting_weights(config: Config, entry: ModelEntry, built: Weights, data: Data | None = None,
                            untrained: Collection[str] = ()) -> tuple[Weights, str]:
    """The weights that a new run starts from, and a line that says which they are.

    `built` are the weights of the freshly built model, `untrained` the names of those that it does not train. A head
    for other classes than those of `data` is drawn anew, also where they are as many; without `data` it is kept.

    Raises:
        UserError: where `init_from` or the checkpoint does not fit the model.
    """
    folders, classes = (data.folders, data.classes) if data else ((), ())
    shapes = {name: tensor.shape for name, tensor in built.items()}
    head, words = [name for name in entry.head_tensors if name in shapes], []  # a head may lack a bias
    if config.init_from:
        source = path = find_weight_file(config.init_from)
        same = not classes or read_classes(path) in ((), classes)
        given = {name: tensor for name, tensor in read_weights(path).items()
                 if name not in head or (same and tensor.shape == shapes[name])}
    elif is_pretrained(config):
        source, path, found = read_pretrained(config, entry)
        try:
            given, words = adapt_checkpoint(found, shapes, entry, folders)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(f"{path} does not fit model.name={config.model.name} ({type(error).__name__}: {error}); "
                            "use the checkpoint of that model") from None
    else:
        return draw_weights(config, entry, built, data, untrained)
    if anew := [name for name in head if name not in given]:
        drawn, _ = draw_weights(config, entry, built, data, untrained)
        given |= {name: drawn[name] for name in anew}
        words = [*words, f"{', '.join(anew)} drawn anew for {shapes[head[0]][0]} classes"]
    require_matching_tensors(given, shapes, path)
    return given, "; ".join([f"weights from {source}", *words])


def read_pretrained(config: Config, entry: ModelEntry) -> tuple[str, object, Weights]:
    """The source, as a reader is told, the file and the weights of the checkpoint that `model.pretrained` names."""
    if entry.library:
        source, weights = entry.library.read_checkpoint(config)
        return source, source, weights
    checkpoint = find_checkpoint(config)
    return checkpoint.source, checkpoint.weights, read_weights(checkpoint.weights)
