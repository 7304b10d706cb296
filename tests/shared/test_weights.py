"""Initial weights, and the file in which weights travel."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from shared.config import Config
from shared.errors import UserError
from shared.machine.files import find_weight_file
from shared.models import MODELS
from shared.weights import initial
from shared.weights.file import fingerprint_weights, read_metadata, read_weights, require_matching_tensors, save_weights
from shared.weights.initial import draw_initial_weights, find_fixed_tensors
from shared.weights.start import choose_starting_weights

# The kinds of tensors that a ResNet-18 has.
SHAPES = {"conv1.weight": (64, 3, 7, 7), "bn1.weight": (64,), "bn1.bias": (64,), "bn1.running_mean": (64,),
          "bn1.running_var": (64,), "layer1.0.conv1.weight": (64, 64, 3, 3),
          "layer2.0.downsample.0.weight": (128, 64, 1, 1), "layer2.0.downsample.1.weight": (128,),
          "fc.weight": (1000, 512), "fc.bias": (1000,)}


def test_initial_weights_have_not_moved():
    """Frozen: other weights would be another experiment. Few of the normal ones and those with a tolerance, since
    SciPy's quantile may differ in a last bit from version to version."""
    small = draw_initial_weights({"conv1.weight": (2, 1, 1, 2), "fc.weight": (2, 3)}, seed=0)
    assert small["conv1.weight"].ravel().tolist() == pytest.approx(
        [1.0744706, -0.10189475, 0.74016601, 0.64588106], rel=1e-6)
    assert small["fc.weight"].ravel().tolist() == pytest.approx(
        [0.34656051, -0.089144409, -0.44712785, -0.45989349, 0.46823472, 0.29960757], rel=1e-6)
    dense = draw_initial_weights({"fc.weight": (1000, 512), "bn1.weight": (64,)}, seed=3)
    assert fingerprint_weights(dense) == "4d0f45d8df36a9b2"


@pytest.mark.parametrize("seed", [0, 1])
def test_each_kind_of_tensor_has_its_distribution(seed):
    drawn = draw_initial_weights(SHAPES, seed)
    assert {name: tensor.shape for name, tensor in drawn.items()} == SHAPES
    assert {tensor.dtype for tensor in drawn.values()} == {np.dtype(np.float32)}
    for name, deviation in (("conv1.weight", (2 / (64 * 49)) ** 0.5), ("layer1.0.conv1.weight", (2 / (64 * 9)) ** 0.5),
                            ("layer2.0.downsample.0.weight", (2 / 128) ** 0.5)):
        tensor = drawn[name].astype(np.float64)
        count = tensor.size
        assert abs(tensor.mean()) < 4 * deviation / count**0.5, name
        assert tensor.std() == pytest.approx(deviation, rel=4 / (2 * count) ** 0.5), name
        assert np.mean(np.abs(tensor) < deviation) == pytest.approx(0.6827, abs=0.02), name  # normal, not uniform
        assert np.isfinite(tensor).all()
    dense, bound = drawn["fc.weight"].astype(np.float64), 512**-0.5
    assert np.abs(dense).max() <= bound * (1 + 1e-7)
    assert np.abs(dense).max() > 0.999 * bound
    assert abs(dense.mean()) < 4 * bound / (3 * dense.size) ** 0.5
    assert dense.std() == pytest.approx(bound / 3**0.5, rel=0.01)
    for name, value in (("bn1.weight", 1), ("bn1.bias", 0), ("bn1.running_mean", 0), ("bn1.running_var", 1),
                        ("layer2.0.downsample.1.weight", 1), ("fc.bias", 0)):
        assert (drawn[name] == value).all(), name


def test_a_tensor_depends_on_seed_name_and_shape_and_on_nothing_else():
    drawn = draw_initial_weights(SHAPES, 0)
    backwards = draw_initial_weights(dict(reversed(SHAPES.items())), 0)
    alone = draw_initial_weights({"layer1.0.conv1.weight": (64, 64, 3, 3)}, 0)["layer1.0.conv1.weight"]
    assert all(np.array_equal(drawn[name], backwards[name]) for name in SHAPES)
    assert np.array_equal(drawn["layer1.0.conv1.weight"], alone)
    assert fingerprint_weights(drawn) == fingerprint_weights(backwards)
    assert not np.array_equal(draw_initial_weights(SHAPES, 1)["fc.weight"], drawn["fc.weight"])
    twins = draw_initial_weights({"a.weight": (4, 4), "b.weight": (4, 4)}, 0)
    assert not np.array_equal(twins["a.weight"], twins["b.weight"])


def test_the_smallest_draw_gives_a_finite_weight(monkeypatch):
    monkeypatch.setattr(initial, "draw_uniforms", lambda count, *key: np.zeros(count))
    assert np.isfinite(draw_initial_weights({"conv1.weight": (2, 1, 1, 1)}, 0)["conv1.weight"]).all()


def test_a_tensor_without_a_rule_and_without_a_value_is_told():
    with pytest.raises(UserError, match=r"scale has shape .* no rule of how to start"):
        draw_initial_weights({"scale": ()}, 0)


def test_a_fingerprint_sees_names_and_values():
    base = {"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32)}
    assert fingerprint_weights(base) == fingerprint_weights(dict(reversed(base.items())))
    assert fingerprint_weights(base) != fingerprint_weights({"a": base["b"], "b": base["a"]})
    assert fingerprint_weights(base) != fingerprint_weights({"a": base["a"], "c": base["b"]})


# The file

@pytest.fixture
def model():
    """Weights of a tiny classifier of three classes."""
    shapes = {"conv1.weight": (2, 1, 3, 3), "fc.weight": (3, 2), "fc.bias": (3,)}
    return shapes, draw_initial_weights(shapes, 5)


def test_a_weight_file_returns_what_went_in(tmp_path, model):
    config = Config(seed=5)
    weights = {**model[1], "turned": np.arange(6).reshape(2, 3).T}
    save_weights(tmp_path / "best.safetensors", weights, config, ("a", "b", "c"))
    found = read_weights(tmp_path / "best.safetensors")
    assert all(np.array_equal(found[name], tensor) for name, tensor in model[1].items())
    assert found["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    metadata = read_metadata(tmp_path / "best.safetensors")
    assert json.loads(metadata["classes"]) == ["a", "b", "c"]
    assert metadata["model"] == "resnet18"
    assert metadata["format"] == "lightning-keras-template/1"
    assert "seed: 5" in metadata["config"]
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


def test_an_interrupted_writing_leaves_the_old_file(tmp_path, model, monkeypatch):
    path = tmp_path / "best.safetensors"
    save_weights(path, model[1], Config(), ("a", "b", "c"))
    before = path.read_bytes()

    def cut_off(unfinished, content):
        with unfinished.open("wb") as file:
            file.write(content[:4])
        raise OSError("disk full")
    monkeypatch.setattr(Path, "write_bytes", cut_off)
    with pytest.raises(UserError, match=r"best.safetensors cannot be written \(disk full\)"):
        save_weights(path, {}, Config(), ())
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no weights", b"\xff" * 100, b"\x02\x00\x00\x00\x00\x00\x00\x00{}rest"])
def test_a_damaged_file_is_told_in_one_line(tmp_path, content):
    path = tmp_path / "best.safetensors"
    path.write_bytes(content)
    for reader in (read_weights, read_metadata):
        with pytest.raises(UserError, match=r"best\.safetensors is not a readable safetensors file"):
            reader(path)


def test_a_truncated_file_is_told(tmp_path, model):
    path = tmp_path / "best.safetensors"
    save_weights(path, model[1], Config(), ("a", "b", "c"))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="not a readable"):
        read_weights(path)


def test_a_file_from_elsewhere_has_no_metadata(tmp_path, model):
    save_file(model[1], tmp_path / "x.safetensors")
    assert read_metadata(tmp_path / "x.safetensors") == {}


def test_a_weight_file_is_named_by_itself_or_by_its_run(tmp_path, model):
    path = tmp_path / "best.safetensors"
    save_weights(path, model[1], Config(), ())
    assert find_weight_file(str(tmp_path)) == find_weight_file(str(path)) == path
    with pytest.raises(UserError, match="does not exist; name a run folder"):
        find_weight_file(str(tmp_path / "other"))


NAN = float("nan")
FRESH = {  # tensors of a freshly built model, and what they start from; NAN: from what is drawn
    "act.weight": (np.full(3, 0.25), [0.25] * 3), "act1.weight": (np.array([0.25]), [0.25]),
    "bn1.weight": (np.ones(3), [1] * 3), "bn1.running_var": (np.ones(3), [1] * 3), "scale": (np.array(2.65), 2.65),
    "blocks.0.gamma": (np.full(3, 1e-6), [np.float32(1e-6)] * 3), "rnn.weight_ih_l0": (np.eye(2), [[1, 0], [0, 1]]),
    "steps": (np.array([3, 4]), [3, 4]), "edges.weight": (np.eye(2) - 1, [[0, -1], [-1, 0]]),
    "last.weight": (np.zeros((2, 2)), [[0, 0], [0, 0]]), "last.bias": (np.array([0.3, -0.1]), [0, 0]),
    "prior.bias": (np.full(2, -4.5), [-4.5] * 2), "one.bias": (np.array([0.3]), [0]),
    "one.weight": (np.array([[0.3]]), [[NAN]]), "fc.weight": (np.eye(2), [[NAN] * 2] * 2),
    "cls_token": (np.zeros((1, 1, 2)), [[[NAN] * 2]]), "pos_embed": (np.zeros((1, 1, 2)), [[[NAN] * 2]]),
    "conv.weight": (np.arange(4.0).reshape(2, 2, 1), [[[NAN]] * 2] * 2)}
UNTRAINED = ("bn1.running_var", "steps", "edges.weight")


def test_what_a_layer_sets_on_purpose_is_kept_and_what_it_draws_is_drawn_anew():
    built = {name: tensor for name, (tensor, _) in FRESH.items()}
    started = draw_initial_weights({name: tensor.shape for name, tensor in built.items()}, 0,
                                   find_fixed_tensors(built, UNTRAINED))
    by_name = draw_initial_weights({name: built[name].shape for name, (_, value) in FRESH.items()
                                    if np.isnan(value).any()}, 0)
    for name, (_, value) in FRESH.items():
        assert started[name].dtype == (np.int64 if name == "steps" else np.float32), name
        expected = by_name[name] if np.isnan(value).any() else np.asarray(value, np.float32)
        assert np.array_equal(started[name], expected), name


@pytest.mark.parametrize("shape", [(64, 32, 5), (16, 8, 3, 3, 3)])
def test_convolutions_of_one_and_three_dimensions_start_as_those_of_two(shape):
    drawn = draw_initial_weights({"conv.weight": shape}, 0)["conv.weight"].astype(np.float64)
    deviation = (2 / (shape[0] * np.prod(shape[2:]))) ** 0.5
    assert drawn.std() == pytest.approx(deviation, rel=4 / (2 * drawn.size) ** 0.5)


# Starting points

RESNET = MODELS["resnet18"]


def built(shapes):
    """A model's tensors before anything is loaded into it; none is constant."""
    return {name: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) for name, shape in shapes.items()}


def test_without_init_from_weights_are_drawn(model):
    drawn, source = choose_starting_weights(Config(seed=5), RESNET, built(model[0]))
    assert fingerprint_weights(drawn) == fingerprint_weights(model[1])
    assert source == "initial weights drawn with seed 5"


def test_init_from_takes_the_file_and_draws_another_head_where_classes_differ(tmp_path, model):
    shapes, given = model
    save_weights(tmp_path / "best.safetensors", given, Config(), ())
    same, source = choose_starting_weights(Config(seed=9, init_from=str(tmp_path)), RESNET, built(shapes))
    assert fingerprint_weights(same) == fingerprint_weights(given)
    assert source == f"weights from {tmp_path / 'best.safetensors'}"

    other = {**shapes, "fc.weight": (7, 2), "fc.bias": (7,)}
    mixed, source = choose_starting_weights(Config(seed=9, init_from=str(tmp_path)), RESNET, built(other))
    assert np.array_equal(mixed["conv1.weight"], given["conv1.weight"])
    assert np.array_equal(mixed["fc.weight"], draw_initial_weights(other, 9)["fc.weight"])
    assert source.endswith("; fc.weight, fc.bias drawn anew for 7 classes")


def with_classes(classes):
    return SimpleNamespace(folders=(), classes=classes)


def test_init_from_draws_another_head_for_other_classes_of_the_same_number(tmp_path, model):
    shapes, given = model
    save_weights(tmp_path / "best.safetensors", given, Config(), ("cat", "dog", "frog"))
    config = Config(seed=9, init_from=str(tmp_path))
    for classes in (("cat", "dog", "frog"), ()):
        same, _ = choose_starting_weights(config, RESNET, built(shapes), with_classes(classes))
        assert fingerprint_weights(same) == fingerprint_weights(given)
    mixed, source = choose_starting_weights(config, RESNET, built(shapes), with_classes(("0", "1", "2")))
    assert np.array_equal(mixed["conv1.weight"], given["conv1.weight"])
    assert np.array_equal(mixed["fc.weight"], draw_initial_weights(shapes, 9)["fc.weight"])
    assert source.endswith("; fc.weight, fc.bias drawn anew for 3 classes")


@pytest.mark.parametrize(("change", "hint"), [
    ({"conv1.weight": None}, "missing conv1.weight"), ({"extra": (1,)}, "unexpected extra"),
    ({"conv1.weight": (2, 1, 5, 5)}, r"conv1.weight is \(2, 1, 5, 5\), expected \(2, 1, 3, 3\)"),
    ({f"e{i}": (1,) for i in range(5)}, r"unexpected e0, e1, e2 \.\.\.; check model.name"),
])
def test_weights_of_another_model_are_refused(model, change, hint):
    shapes, given = model
    for name, shape in change.items():
        given = {other: tensor for other, tensor in given.items() if other != name}
        if shape:
            given[name] = np.zeros(shape, np.float32)
    with pytest.raises(UserError, match=f"^the file does not fit this model: {hint}"):
        require_matching_tensors(given, shapes, "the file")


def test_what_the_framework_drew_is_told():
    fresh = {"conv1.weight": np.ones((2, 1, 3, 3)), "rnn.weight_ih_l0": np.eye(2), "index": np.arange(3),
             "fc.weight": np.eye(3), "fc.bias": np.zeros(3)}
    weights, line = choose_starting_weights(Config(seed=5), RESNET, fresh, untrained=("index",))
    assert line.startswith("initial weights drawn with seed 5; the framework's own values for rnn.weight_ih_l0, for")
    assert np.array_equal(weights["rnn.weight_ih_l0"], np.eye(2))
    assert weights["index"].tolist() == [0, 1, 2]
