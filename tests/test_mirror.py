"""The siblings mirror each other, and each stands without the other: read from the source, no framework is imported."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.config import Config, build_config, flatten, get_value, list_keys, read_yaml
from shared.machine.files import REPOSITORY

SIBLINGS = ("lightning_project", "keras_project")
PYTORCH = {"torch", "torchvision", "lightning", "pytorch_lightning", "torchmetrics", "timm"}
TENSORFLOW = {"tensorflow", "keras", "keras_cv", "tf_keras"}
FORBIDDEN = {"lightning_project": TENSORFLOW | {"keras_project"}, "keras_project": PYTORCH | {"lightning_project"},
             "shared": PYTORCH | TENSORFLOW | set(SIBLINGS)}

# Where a framework's own way needs another function or other arguments than the sibling's. Every entry is used, or the
# tests fail.
ONE_SIBLING_ONLY = {
    # The training step and the optimizer are hooks of a LightningModule ...
    "lightning_project/classifier.py": {"Classifier", "counted", "of_all_processes"},
    # ... and arguments of compile(); the loss of a single step is a metric, since Keras reports running means.
    "keras_project/classifier.py": {"compile_classifier", "LastLoss"},
    # A LightningDataModule with its data sets and samplers; functions that return a tf.data.Dataset.
    "lightning_project/data.py": {"BatchDataset", "StepSampler", "DataModule"},
    "keras_project/data.py": {"train_dataset", "eval_batches", "eval_dataset", "build_dataset", "read_dataset"},
    # Lightning restores its callbacks and its place in an epoch itself, but checks no file, and has bars, though on
    # stdout; its averages are moved by a callback, Keras' by the optimizer.
    "lightning_project/callbacks.py": {"Bars", "checked", "move_averages", "passing"},
    "keras_project/callbacks.py": {"Progress", "variables_of", "resume", "fit"},
    # Each DDP process predicts its share; a Keras strategy puts shares together itself.
    "lightning_project/evaluate.py": {"gathered"},
    # One process per device, which a launcher or Lightning starts; one process per machine, which finds its cluster.
    "lightning_project/runtime.py": {"choose_devices", "join_processes", "launched_from_outside", "process_rank",
                                     "under_slurm"},
    "keras_project/runtime.py": {"connect_tpu", "find_cluster", "has_tpu_support"},
    # torchvision's policies take one image, keras-cv's a batch.
    "lightning_project/augment.py": {"apply_policy"},
    # PyTorch's optimizers are the formula; LambdaLR stands beside the optimizer, a Keras schedule goes into it.
    "lightning_project/optim.py": {"build_schedule", "decayed"},
    "keras_project/optim.py": {"TableSchedule", "TorchOptimizer", "SGD", "Adam", "LossScale", "update_rule"},
    # Keras' data sets and predictions come out as arrays.
    "lightning_project/probe.py": {"joined"},
    # Keras' layout differs from the neutral one.
    "keras_project/models/__init__.py": {"to_neutral", "from_neutral"},
    # Modules in one, a functional model in the other.
    "lightning_project/models/resnet.py": {"Block", "ResNet"},
    "keras_project/models/resnet.py": {"block"},
    "lightning_project/models/efficientnet.py": {"Block", "EfficientNet", "SqueezeExcite"},
    "keras_project/models/efficientnet.py": {"block", "normed", "squeeze_excite"},
    "lightning_project/models/vit.py": {"Attention", "Block", "PatchEmbed", "Perceptron", "VisionTransformer"},
    "keras_project/models/vit.py": {"AttendedValues", "Recomputed", "Tokens", "block", "branch"},
    # PyTorch's convolutions are depthwise and pad as asked, but for single pixels in bf16; and its BatchNorm is the
    # formula, on one device; over several CPUs it has none.
    "lightning_project/models/layers.py": {"Conv2d", "SumOverProcesses", "SyncBatchNorm2d", "synchronise"},
    "keras_project/models/layers.py": {"BatchNorm", "DepthwiseConv", "Dropout", "convolution", "gelu", "next_seed",
                                       "with_head"},
}
OTHER_ARGUMENTS = {
    "evaluate.py:predict": "Lightning predicts through its Trainer, Keras through the model",
    "optim.py:build_optimizer": "a Keras schedule is an argument of the optimizer, and it finds the variables itself",
    "runtime.py:build_strategy": "Lightning's counts processes, TensorFlow's needs the devices' names",
    "callbacks.py:agree_to_stop": "a Trainer knows its processes, a model its strategy",
    "callbacks.py:SaveLast.__init__": "Lightning collects what callbacks keep, Keras does not",
    "callbacks.py:SaveLast.save": "a Trainer knows its step and what to save",
    "probe.py:Snapshots.__init__": "a Trainer brings the test images along",
}
# Methods that a framework calls: their names and arguments are the framework's.
HOOKS = re.compile(r"on_\w+|(load_)?state_dict|call|forward|update_state|result|get_config|__(call|len|getitem|iter)__")


def modules(folder: str) -> dict[str, Path]:
    root = REPOSITORY / folder
    return {str(path.relative_to(root)): path for path in sorted(root.rglob("*.py"))}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def public(tree: ast.Module) -> dict[str, ast.AST]:
    """Functions and classes at a module's top level."""
    return {node.name: node for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")}


def arguments(function: ast.FunctionDef) -> list[str]:
    given = function.args
    return [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


def imports(tree: ast.AST) -> Iterator[str]:
    """The top packages that a module imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield node.module.partition(".")[0]
        elif (isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in
              ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant)):
            yield node.args[0].value.partition(".")[0]


@dataclass
class Pair:
    """A module that both siblings have."""
    name: str
    lightning: dict[str, ast.AST]
    keras: dict[str, ast.AST]


def pairs() -> list[Pair]:
    lightning, keras = (modules(folder) for folder in SIBLINGS)
    return [Pair(name, public(tree_of(lightning[name])), public(tree_of(keras[name])))
            for name in lightning if name in keras]


PAIRS = {pair.name: pair for pair in pairs()}


# The same files, functions and arguments

def test_both_siblings_have_the_same_files():
    lightning, keras = (modules(folder) for folder in SIBLINGS)
    assert {"train.py", "evaluate.py", "data.py", "augment.py", "optim.py", "callbacks.py", "runtime.py",
            "models/__init__.py", "models/resnet.py", "models/efficientnet.py",
            "models/vit.py"} <= set(lightning) & set(keras)
    for mine, other, word in ((lightning, keras, "PyTorch"), (keras, lightning, "Keras")):
        for name in set(mine) - set(other):
            documentation = ast.get_docstring(tree_of(mine[name])) or ""
            assert word in documentation, f"{mine[name]} has no twin, and its docstring does not say why"


@pytest.mark.parametrize("name", PAIRS)
def test_both_have_the_same_functions_and_classes(name):
    pair = PAIRS[name]
    only = {f"lightning_project/{name}": set(pair.lightning) - set(pair.keras),
            f"keras_project/{name}": set(pair.keras) - set(pair.lightning)}
    expected = {path: ONE_SIBLING_ONLY.get(path, set()) for path in only}
    if name.startswith("models/") and not any(expected.values()):  # one's own, of modules and functional
        expected[f"lightning_project/{name}"] = {title for title in set(pair.lightning) - set(pair.keras)
                                                 if isinstance(pair.lightning[title], ast.ClassDef)}
    assert only == expected
    for shared_name in set(pair.lightning) & set(pair.keras):
        assert type(pair.lightning[shared_name]) is type(pair.keras[shared_name])


@pytest.mark.parametrize("name", PAIRS)
def test_functions_of_the_same_name_take_the_same_arguments(name):
    pair, differing = PAIRS[name], set()
    for title in set(pair.lightning) & set(pair.keras):
        mine, other = pair.lightning[title], pair.keras[title]
        if isinstance(mine, ast.FunctionDef):
            functions = {title: (mine, other)}
        else:
            methods, others = ({node.name: node for node in found.body if isinstance(node, ast.FunctionDef)}
                               for found in (mine, other))
            own = {name for name in set(methods) ^ set(others) if not HOOKS.fullmatch(name)}
            assert not own, f"only one sibling's {title} has {own}"
            functions = {f"{title}.{name}": (methods[name], others[name]) for name in set(methods) & set(others)
                         if not HOOKS.fullmatch(name) or name == "__call__"}
        differing |= {f"{name}:{key}" for key, (one, two) in functions.items() if arguments(one) != arguments(two)}
    assert differing == {key for key in OTHER_ARGUMENTS if key.partition(":")[0] == name}


def test_every_exception_above_names_a_module():
    assert {path for path in ONE_SIBLING_ONLY if not (REPOSITORY / path).is_file()} == set()
    assert {key for key in OTHER_ARGUMENTS if key.partition(":")[0] not in PAIRS} == set()


@pytest.mark.parametrize("name", ["train.py", "evaluate.py"])
def test_entry_points_do_nothing_on_import_and_start_alike(name):
    bodies = []
    for folder in SIBLINGS:
        tree = tree_of(REPOSITORY / folder / name)
        assert not {package for node in tree.body for package in imports(node)
                    if isinstance(node, ast.Import | ast.ImportFrom)} & (PYTORCH | TENSORFLOW)
        last = tree.body[-1]
        assert ast.unparse(last.test) == "__name__ == '__main__'"
        bodies.append(ast.unparse(last).replace(folder, "PROJECT"))
    assert bodies[0] == bodies[1]


# Who imports whom

@pytest.mark.parametrize("folder", FORBIDDEN)
def test_a_package_imports_no_other_framework(folder):
    found = {f"{folder}/{name}": sorted(set(imports(tree_of(path))) & FORBIDDEN[folder])
             for name, path in modules(folder).items()}
    assert len(found) > 5
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("folder", ["tests/shared", "tests/test_mirror.py"])
def test_tests_of_the_shared_part_import_no_framework(folder):
    place = REPOSITORY / folder
    for path in [place] if place.is_file() else place.rglob("*.py"):
        assert not set(imports(tree_of(path))) & (PYTORCH | TENSORFLOW | set(SIBLINGS)), path


def test_imports_are_found_wherever_they_hide():
    source = "import a.b\ndef f():\n    from c.d import e\n    importlib.import_module('g.h')\n    __import__('i')\n"
    assert list(imports(ast.parse(source))) == ["a", "c", "g", "i"]


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


# Configs

# launchers/ holds files of schedulers, which tests/launchers checks.
CONFIGS = sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "configs").rglob("*.yaml")
                 if "launchers" not in path.parts)
# What a config of one's own images is given on the command line, or names on its owner's machine.
NEEDED = {"image_folder": {"dataset": {"root": "."}}, "imagenet_mini": {"dataset": {"root": "."}}}


def given(name: str) -> dict:
    from omegaconf import OmegaConf

    return flatten(OmegaConf.to_container(read_yaml(REPOSITORY / name)))


def header(name: str) -> str:
    lines = (REPOSITORY / name).read_text().splitlines()
    return "\n".join(lines[:next(i for i, line in enumerate(lines) if not line.startswith("#"))])


def test_there_are_configs():
    assert {"configs/quickstart.yaml", "configs/cifar10_resnet18.yaml", "configs/fashion_mnist_resnet18.yaml",
            "configs/image_folder.yaml"} <= set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_gives_a_reason_for_each_value(name):
    text = (REPOSITORY / name).read_text()
    bare = [line for line in text.splitlines() if re.match(r" +\w+: *[^\s#]", line) and "#" not in line]
    # Which data set and model it is about, its header has said.
    assert [line for line in bare if not line.startswith("  name: ")] == []


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_parses_and_does_what_it_says(name, monkeypatch, tmp_path):
    from omegaconf import OmegaConf

    monkeypatch.chdir(tmp_path)
    keys = given(name)
    needed = NEEDED.get(keys.get("dataset.name"), {})
    config = build_config([(name, read_yaml(REPOSITORY / name)), ("needed", OmegaConf.create(needed))])
    if needed:
        keys.pop("dataset.root", None)
    assert {dotted: get_value(config, dotted) for dotted in keys} == keys


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.count("/") == 1])
def test_a_preset_states_only_what_differs_from_the_defaults(name):
    same = {dotted for dotted, value in given(name).items() if value == get_value(Config(), dotted)}
    assert same == set()


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.count("/") == 1])
def test_a_preset_opens_with_its_claim(name):
    claim = header(name)
    arguments = "" if name == "configs/quickstart.yaml" else f" {name}"
    for folder in SIBLINGS:
        assert f"python {folder}/train.py{arguments}" in claim
    for word in ("hardware", "minutes", "accuracy", "source"):
        assert re.search(rf"^# {word} +\S", claim, re.MULTILINE), word
    minutes, accuracy = (re.search(rf"^# {word} +(.*)$", claim, re.MULTILINE).group(1)
                         for word in ("minutes", "accuracy"))
    for told in (minutes, accuracy):
        assert "not measured" in told or re.search(r"\d", told), told


@pytest.mark.parametrize("name", [name for name in CONFIGS if "/debug/" in name])
def test_a_debug_config_can_follow_any_preset(name, monkeypatch, tmp_path):
    from omegaconf import OmegaConf

    assert len(header(name)) > 30
    monkeypatch.chdir(tmp_path)
    for preset in (preset for preset in CONFIGS if preset.count("/") == 1):
        needed = NEEDED.get(given(preset).get("dataset.name"), {})
        build_config([(preset, read_yaml(REPOSITORY / preset)), ("needed", OmegaConf.create(needed)),
               (name, read_yaml(REPOSITORY / name))])


def test_a_config_key_that_is_not_in_the_schema_would_be_found():
    assert set().union(*map(given, CONFIGS)) <= set(list_keys())
