"""The siblings mirror each other, each stands without the other, and imports in shared/ point down only.

All of it is read from the source; no framework is imported.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from shared.machine.files import REPOSITORY
from shared.machine.interpreters import list_siblings
from shared.models import MODELS
from tests.conftest import needs_both_folders

SIBLINGS = tuple(f"{name}_project" for name in list_siblings())
PYTORCH = {"torch", "torchvision", "lightning", "pytorch_lightning", "torchmetrics", "timm"}
TENSORFLOW = {"tensorflow", "keras", "keras_cv", "tf_keras"}
FORBIDDEN = {"lightning_project": TENSORFLOW | {"keras_project"}, "keras_project": PYTORCH | {"lightning_project"},
             "shared": PYTORCH | TENSORFLOW | {"lightning_project", "keras_project"}}

# The common core: whoever knows one sibling finds the same in the other. Beside it each sibling has what it needs.
CORE = {
    "train.py": ["train"],
    "evaluate.py": ["predict_splits", "evaluate"],
    "predict.py": ["build_compute", "predict"],
    "export.py": ["export"],
    "artifact.py": [],
    "loading.py": [],
    "classifier.py": ["build_loss", "build_metrics", "validate_seams", "score_predictions"],
    "losses.py": ["BinaryCrossEntropy", "FocalLoss"],
    "data.py": [],
    "augment.py": ["Augmentation.__init__", "Augmentation.__call__", "resize", "mix", "build_policy"],
    "optim.py": ["build_optimizer"],
    "runtime.py": ["build_runtime", "build_strategy", "measure_peak_memory", "Runtime.leader", "Runtime.prepare_model",
                   "Runtime.broadcast_text", "Runtime.choose_workers"],
    "callbacks.py": ["build_callbacks"],
    "checkpoints.py": ["BestWeightsWriter.__init__", "CheckpointWriter.__init__"],
    "progress.py": ["ProgressBars"],
    "models/__init__.py": ["find_entry", "build_model"],
    "models/neutral.py": ["neutral_state", "neutral_shapes", "neutral_weights", "load_weights"],
    "models/layers.py": [],
    **{f"models/{entry.builder}.py": [f"build_{entry.builder}"] for entry in MODELS.values() if not entry.framework},
    # What shared.gallery, shared.study, shared.parity and shared.bench start in each sibling.
    "explain.py": ["explain", "explain_trained"],
    "multiply_adds.py": ["count_multiply_adds"],
    "probe.py": ["record_raw", "record_pixels", "record_start", "record_forward", "record_rates", "record_fit"],
    "bench.py": ["measure_bare_speed", "measure_bare", "measure_bare_per_core", "measure_rounds", "measure_training",
                 "measure_stock_training", "measure_input", "measure_stock_input"],
    "gpu_check.py": ["describe_gpu", "train_until_killed", "train_in_little_memory"],
}
# Of the core, what takes other arguments in each sibling, because its framework wants them so.
OTHER_ARGUMENTS = {
    "evaluate.py: predict_splits": "Lightning predicts through its Trainer, Keras through the model",
    "optim.py: build_optimizer": "a Keras schedule is an argument of the optimizer, which finds the variables itself",
    "runtime.py: build_strategy": "Lightning's counts processes, TensorFlow's needs the devices' names",
    "checkpoints.py: CheckpointWriter.__init__": "Lightning collects what callbacks keep, Keras does not",
}
# The rooms of shared/, from the ground up: each may import from itself and from those before it. What is named with its
# room in front stands on a floor of its own.
ROOMS = ("errors", "machine", "data", "models", "config", "data.augment", "data.preprocessing",
         "data.loading", "data.cache", "data.batches", "weights", "runs", "scores", "training", "artifacts.card",
         "artifacts", "artifacts.prediction", "scores.gallery", "compare", "artifacts.serve", "parity", "bench",
         "training.sweep", "training.study", "commands")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def modules(folder: str) -> dict[str, Path]:
    root = REPOSITORY / folder
    return {str(path.relative_to(root)): path for path in sorted(root.rglob("*.py"))}


def definitions(body: list[ast.stmt], prefix: str = "") -> dict[str, ast.FunctionDef | ast.ClassDef]:
    """Functions, classes and "Class.method" of a module by name."""
    found = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[prefix + node.name] = node
            if isinstance(node, ast.ClassDef):
                found |= definitions(node.body, f"{node.name}.")
    return found


def arguments(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    if isinstance(node, ast.ClassDef):  # a framework's subclass, whose arguments are the framework's
        return []
    given = node.args
    return [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


def imports(tree: ast.AST) -> Iterator[str]:
    """What a module imports, also inside functions: `from a.b import c` is a.b.c, whether c is a module or not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif (isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in
              ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant)):
            yield node.args[0].value


def packages(tree: ast.AST) -> set[str]:
    return {name.partition(".")[0] for name in imports(tree)}


# The common core

@pytest.mark.parametrize("name", CORE)
@pytest.mark.parametrize("folder", SIBLINGS)
def test_a_sibling_has_the_common_core(folder, name):
    path = REPOSITORY / folder / name
    assert path.is_file()
    assert set(CORE[name]) <= set(definitions(tree_of(path).body))


@needs_both_folders
@pytest.mark.parametrize("name", CORE)
def test_what_is_in_the_core_takes_the_same_arguments_in_both(name):
    pair = [definitions(tree_of(REPOSITORY / folder / name).body) for folder in SIBLINGS]
    differing = {f"{name}: {title}" for title in CORE[name]
                 if len({tuple(arguments(found[title])) for found in pair}) > 1}
    assert differing == {key for key in OTHER_ARGUMENTS if key.partition(":")[0] == name}


def test_what_may_differ_is_of_the_core():
    assert set(OTHER_ARGUMENTS) <= {f"{name}: {title}" for name, titles in CORE.items() for title in titles}


# What is started by its path

def entry_points(folder: str) -> list[str]:
    """The commands of a sibling, whose last line hands over to the module `command` of a room of shared/."""
    return [name for name, path in modules(folder).items() if re.search(r"shared\.[\w.]+\.command", path.read_text())
            and re.search(r"run_\w*command", ast.unparse(tree_of(path).body[-1]))]


ENTRY_POINTS = [(folder, name) for folder in SIBLINGS for name in entry_points(folder)]


@pytest.mark.parametrize("folder", SIBLINGS)
def test_a_sibling_has_its_commands(folder):
    assert {"train.py", "evaluate.py", "predict.py", "export.py"} <= set(entry_points(folder))


@pytest.mark.parametrize(("folder", "name"), ENTRY_POINTS)
def test_an_entry_point_imports_no_framework_and_runs_the_code_beside_it(folder, name):
    body = tree_of(REPOSITORY / folder / name).body
    assert not set().union(*(packages(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom))
                           ) & (PYTORCH | TENSORFLOW)
    own = next(place for place, node in enumerate(body) if packages(node) & {"shared", folder})
    before = [ast.unparse(node) for node in body[:own]]
    assert "sys.path.insert(0, str(Path(__file__).resolve().parents[1]))" in before
    assert ast.unparse(body[-1]).startswith("if __name__ == '__main__':")


@needs_both_folders
def test_what_both_have_starts_alike():
    for name in set(entry_points(SIBLINGS[0])) & set(entry_points(SIBLINGS[1])):
        starts = {ast.unparse(tree_of(REPOSITORY / folder / name).body[-1]).replace(
            folder.removesuffix("_project"), "SIBLING") for folder in SIBLINGS}
        assert len(starts) == 1, starts


# Who imports whom

@pytest.mark.parametrize("folder", ["shared", *SIBLINGS])
def test_a_package_imports_no_other_framework(folder):
    found = {f"{folder}/{name}": sorted(packages(tree_of(path)) & FORBIDDEN[folder])
             for name, path in modules(folder).items()}
    assert len(found) > 5
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("folder", ["tests/shared", "tests/test_mirror.py"])
def test_tests_of_the_shared_part_import_no_framework(folder):
    place = REPOSITORY / folder
    for path in [place] if place.is_file() else place.rglob("*.py"):
        assert not packages(tree_of(path)) & FORBIDDEN["shared"], path


def shared_imports() -> dict[str, set[str]]:
    """The modules of shared/, and which of them each imports."""
    paths = {"shared." + name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): path
             for name, path in modules("shared").items()}

    def module_of(name: str) -> str:
        while name and name not in paths:
            name = name.rpartition(".")[0]
        return name
    return {module: {module_of(name) for name in imports(tree_of(path))} - {"", module}
            for module, path in paths.items()}


def upward_imports(graph: dict[str, set[str]]) -> list[str]:
    def floor(module: str) -> int:
        parts = module.split(".")[1:]
        return next(ROOMS.index(name) for name in (".".join(parts[:2]), parts[0]) if name in ROOMS)
    return [f"{module} imports {other}" for module, others in graph.items() for other in sorted(others)
            if floor(other) > floor(module)]


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules of which each imports the next, and the last is the first; empty where there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return []


def test_imports_in_shared_point_down():
    assert upward_imports(shared_imports()) == []


def test_imports_in_shared_run_in_no_circle():
    assert find_circle(shared_imports()) == []


def test_an_import_upwards_and_a_circle_would_be_found():
    assert upward_imports({"shared.machine.files": {"shared.errors", "shared.config.schema"}}) == [
        "shared.machine.files imports shared.config.schema"]
    assert find_circle({"shared.a": {"shared.b"}, "shared.b": {"shared.c"}, "shared.c": {"shared.a"}})


def test_imports_are_found_wherever_they_hide():
    source = "import a.b\ndef f():\n    from c.d import e\n    importlib.import_module('g.h')\n    __import__('i')\n"
    assert list(imports(ast.parse(source))) == ["a.b", "c.d.e", "g.h", "i"]


# Names and places

def sources() -> list[Path]:
    folders = ("shared", *SIBLINGS, "tests", "configs", ".github", ".ci")
    found = [path for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.is_file()]
    found += [path for path in REPOSITORY.iterdir() if path.is_file()]
    return [path for path in found if "__pycache__" not in path.parts and path.suffix not in (".png", ".npz")]


def test_nothing_is_called_a_drawer():
    names = [path.stem.lower() for path in sources()] + [
        path.name for folder in ("shared", *SIBLINGS) for path in (REPOSITORY / folder).rglob("*") if path.is_dir()]
    assert not {"utils", "util", "helpers", "helper", "common", "misc"} & set(names)


def test_no_file_names_a_place_on_a_developers_machine():
    here = b"|".join(re.escape(str(folder).encode()) for folder in (REPOSITORY, Path.home()) if len(folder.parts) > 1)
    place = re.compile(rb"(?:/(?:home|Users)/[a-z]\w*|" + here + rb")/|[A-Z]:\\Users")
    found = {str(path.relative_to(REPOSITORY)): match.group().decode() for path in sources()
             if (match := place.search(path.read_bytes()))}
    assert found == {}
