"""Batches as a pure function of their number."""

import pickle

import numpy as np
import pytest
from PIL import Image

from shared.config import Config
from shared.data import augment
from shared.data.batches import EvalBatches, TrainBatches
from shared.data.loading import Data, Images
from shared.data.sampling import order_epoch


def data_of(train=10, val=5, size=4, image_size=4, channels=1):
    """Image i of each split is filled with i; its class is i modulo 3."""
    def images(count):
        pixels = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, size, size, channels))
        return Images(np.arange(count) % 3, pixels.copy(), None)
    return Data("made", ("a", "b", "c"), images(train), images(val), images(val), image_size, channels,
                (0.5,) * channels, (0.5,) * channels)


def config_of(batch_size=4, epochs=2, **augmentation):
    config = Config(seed=3)
    config.train.batch_size, config.train.epochs, config.train.eval_batch_size = batch_size, epochs, 2
    for name, value in {"crop": "none", **augmentation}.items():
        setattr(config.augment, name, value)
    return config


@pytest.fixture
def files(tmp_path):
    """Six files of 9 x 7 in random colours, as a data set of three classes."""
    draws = np.random.default_rng(0)
    paths = []
    for number in range(6):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(draws.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(paths[-1])
    images = Images(np.arange(6) % 3, None, np.array(paths))
    return Data("made", ("a", "b", "c"), images, images, images, 8, 3, (0.5,) * 3, (0.5,) * 3)


def test_training_alone_reads_fast(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.jpg")
    images = Images(np.zeros(2, int), None, np.array([str(tmp_path / "0.jpg")] * 2))
    data = Data("made", ("a", "b"), images, images, images, 8, 3, (0.5,) * 3, (0.5,) * 3)
    config = config_of(batch_size=2)
    exact = TrainBatches(config, data)[0]["image"], EvalBatches(config, data, images)[0]["image"]
    config.dataset.decode = "fast"
    fast = TrainBatches(config, data)[0]["image"], EvalBatches(config, data, images)[0]["image"]
    assert [np.array_equal(*pair) for pair in zip(exact, fast, strict=True)] == [False, True]


def test_batches_follow_the_order_of_their_epoch_and_leave_the_remainder_out():
    data, config = data_of(10), config_of()
    batches = TrainBatches(config, data)
    assert len(batches) == 4
    for step in range(4):
        epoch, position = divmod(step, 2)
        expected = order_epoch(10, 3, epoch)[4 * position:4 * position + 4]
        batch = batches[step]
        assert batch["index"].tolist() == expected.tolist()
        assert batch["image"][:, 0, 0, 0].tolist() == expected.tolist()
        assert batch["target"].argmax(1).tolist() == (expected % 3).tolist()


def test_a_batch_depends_on_nothing_but_its_number():
    data, config = data_of(10), config_of(crop="pad", flip=True, mixup_alpha=1.0)
    forwards = TrainBatches(config, data)
    backwards = TrainBatches(config, data)
    last = [backwards[step] for step in reversed(range(4))][::-1]
    for step in range(4):
        batch = forwards[step]
        assert list(batch) == list(last[step])
        assert all(np.array_equal(array, last[step][name]) for name, array in batch.items())


def test_batches_can_be_handed_to_another_process():
    batches = TrainBatches(config_of(crop="pad"), data_of(10))
    copy = pickle.loads(pickle.dumps(batches))
    assert np.array_equal(copy[3]["image"], batches[3]["image"])


def test_an_image_is_augmented_by_its_own_draws_of_the_epoch():
    data, config = data_of(10), config_of(crop="pad", crop_padding=2, flip=True)
    batch = TrainBatches(config, data)[3]  # the second of the second epoch
    draws = augment.draw_epoch(10, 3, 1)[batch["index"]]
    assert np.array_equal(batch["flip"], augment.choose_flips(config.augment, draws))
    rows, columns = augment.build_geometry(config.augment, draws, 4, 4, 4)
    assert np.array_equal(batch["rows"], rows)
    assert np.array_equal(batch["columns"], columns)


def test_alternating_flips_follow_the_image_and_the_epoch():
    batches = TrainBatches(config_of(flip=True, alternating_flip=True), data_of(10))
    flips = {}
    for step in range(6):  # two batches of four of the ten images in each of three epochs
        for index, flip in zip(batches[step]["index"].tolist(), batches[step]["flip"].tolist(), strict=True):
            flips.setdefault(index, {})[step // 2] = flip
    for index, seen in flips.items():
        first = augment.draw_epoch(10, 3, 0)[index, augment.FLIP] < 0.5
        assert all(flip == (first ^ bool(epoch % 2)) for epoch, flip in seen.items())
    assert any(len(seen) == 3 for seen in flips.values())


@pytest.mark.parametrize("settings", [{"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0}])
def test_mixed_targets_are_shares_of_both_classes(settings):
    data, config = data_of(60, size=16, image_size=16), config_of(batch_size=60, **settings)
    batch = TrainBatches(config, data)[0]
    own = np.eye(3)[batch["index"] % 3]
    share = augment.choose_mixing(config.augment, augment.draw_epoch(60, 3, 0)[batch["index"]], 16)["share"][:, None]
    assert batch["target"] == pytest.approx(share * own + (1 - share) * own[batch["partner"]])
    assert batch["target"].dtype == np.float32
    assert batch["target"].sum(1) == pytest.approx(1)
    assert np.mean(batch["target"].max(1) < 0.99) > 0.3  # of the two thirds whose partner is of another class


def test_evaluation_counts_every_image_once_in_order_and_changes_none():
    data = data_of(10, val=5)
    batches = EvalBatches(config_of(crop="pad", flip=True, mixup_alpha=1.0), data, data.val)
    assert len(batches) == 3
    seen = [batches[i] for i in range(3)]
    assert [batch["index"].tolist() for batch in seen] == [[0, 1], [2, 3], [4]]
    assert all(set(batch) == {"image", "target", "index", "weight"} for batch in seen)
    assert all(batch["weight"].all() for batch in seen)
    assert np.array_equal(np.concatenate([batch["target"] for batch in seen]), np.eye(3)[np.arange(5) % 3])


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("images", [33, 97])
def test_processes_share_out_evaluation_and_count_each_image_once(images, processes):
    data, config = data_of(10, val=images), config_of()
    config.train.eval_batch_size = 16
    parts = [EvalBatches(config, data, data.val, rank, processes, multiple_of=processes) for rank in range(processes)]
    counted = []
    for step in range(len(parts[0])):
        batches = [part[step] for part in parts]
        assert len({len(batch["index"]) for batch in batches}) == 1  # equal shares
        for batch in batches:
            assert batch["image"][:, 0, 0, 0].tolist() == batch["index"].tolist()
            counted += batch["index"][batch["weight"] > 0].tolist()
    assert counted == list(range(images))
    of_steps = [parts[0].list_rows(step) for step in range(len(parts[0]))]
    rows, weight = (np.concatenate(of_all) for of_all in zip(*of_steps, strict=True))
    assert rows[weight > 0].tolist() == list(range(images))


def test_processes_share_out_a_training_batch():
    data, config = data_of(10), config_of(crop="pad", flip=True, mixup_alpha=1.0)
    whole = TrainBatches(config, data)[1]
    shares = [TrainBatches(config, data, rank, 2)[1] for rank in range(2)]
    for name in ("image", "target", "index", "flip", "opacity"):
        assert np.array_equal(np.concatenate([share[name] for share in shares]), whole[name]), name
    # Partners are neighbours within a share, and so the same images.
    assert [share["index"][share["partner"]].tolist() for share in shares] \
        == whole["index"][whole["partner"]].reshape(2, 2).tolist()


def test_accumulation_splits_a_batch_into_parts():
    data, config = data_of(10), config_of(crop="pad", flip=True)
    whole = [TrainBatches(config, data)[step] for step in range(4)]
    config.train.accumulate = 2
    parts = TrainBatches(config, data)
    assert len(parts) == 8
    for step, batch in enumerate(whole):
        halves = [parts[2 * step], parts[2 * step + 1]]
        for name, array in batch.items():
            assert np.array_equal(np.concatenate([half[name] for half in halves]), array), name
    assert parts.name_images(1) == whole[1]["index"].tolist()


def test_names_of_a_batch_are_its_files_or_indices(files):
    data, config = data_of(10), config_of(batch_size=2)
    assert TrainBatches(config, data).name_images(3) == TrainBatches(config, data)[3]["index"].tolist()
    named = TrainBatches(config, files)
    assert named.name_images(1) == [files.train.files[i] for i in named.list_indices(1)]


def test_limited_evaluation_stops_early():
    data, config = data_of(10), config_of()
    config.debug.limit_batches = 2
    assert len(EvalBatches(config, data, data.val)) == 2
    assert len(TrainBatches(config, data)) == 4


def test_overfitting_repeats_the_same_batches_without_augmentation():
    config = config_of(epochs=3, crop="pad", flip=True, mixup_alpha=1.0)
    config.debug.overfit_batches = 1
    batches = TrainBatches(config, data_of(10))
    assert len(batches) == 3
    assert [batches[step]["index"].tolist() for step in range(3)] == [order_epoch(10, 3, 0)[:4].tolist()] * 3
    assert set(batches[0]) == {"image", "target", "index"}


SETTINGS = [{}, {"crop": "pad"}, {"crop": "resized"}, {"flip": True}, {"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0},
            {"crop": "pad", "flip": True, "mixup_alpha": 0.2, "cutmix_alpha": 1.0}]


def fits(batches, batch):
    spec = batches.describe_arrays()
    assert list(spec) == list(batch)
    for name, (dtype, shape) in spec.items():
        assert batch[name].dtype == dtype, name
        assert batch[name].shape[1:] == shape[1:], name
        assert shape[0] is None


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("image_size", [4, 6])
def test_the_spec_is_that_of_a_real_batch(settings, image_size):
    data = data_of(10, image_size=image_size)
    batches = TrainBatches(config_of(**settings), data)
    fits(batches, batches[1])
    evaluation = EvalBatches(config_of(**settings), data, data.val)
    fits(evaluation, evaluation[2])


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_spec_of_files_is_that_of_a_real_batch(settings, files):
    batches = TrainBatches(config_of(**settings), files)
    fits(batches, batches[0])
    assert batches[0]["image"].shape == (4, 8, 8, 3)
    evaluation = EvalBatches(config_of(**settings), files, files.val)
    fits(evaluation, evaluation[0])


def test_a_file_is_cropped_by_its_own_draws(files):
    config = config_of(crop="resized")
    batch = TrainBatches(config, files)[0]
    for image, index in zip(batch["image"], batch["index"], strict=True):
        draws = augment.draw_epoch(6, 3, 0)[[index]]
        top, left, height, width = augment.choose_resized_boxes(config.augment, draws, 9, 7)[0]
        reference = Image.open(files.train.files[index]).resize(
            (8, 8), Image.Resampling.BILINEAR, (left, top, min(left + width, 7), min(top + height, 9)))
        assert np.array_equal(image, np.array(reference))


@pytest.mark.parametrize(("fill", "mode"), [("zeros", "constant"), ("reflect", "reflect")])
def test_a_file_is_padded_as_an_image_in_memory_is(files, fill, mode):
    """Its central square first, then a window of the padded square; evaluation stops after the first."""
    config = config_of(crop="pad", crop_padding=2, crop_fill=fill)
    batch = TrainBatches(config, files)[0]
    config.train.eval_batch_size = 6
    squares = EvalBatches(config, files, files.val)[0]["image"]
    assert np.array_equal(squares[0], np.array(Image.open(files.val.files[0]).resize(
        (8, 8), Image.Resampling.BILINEAR, (0, 1, 7, 8))))
    offsets = augment.choose_offsets(config.augment, augment.draw_epoch(6, 3, 0)[batch["index"]]) + 2
    for image, index, (top, left) in zip(batch["image"], batch["index"], offsets, strict=True):
        padded = np.pad(squares[index], ((2, 2), (2, 2), (0, 0)), mode)
        assert np.array_equal(image, padded[top:top + 8, left:left + 8])


# Balance

def test_oversampling_shows_classes_equally_often_and_augments_repeated_images_anew():
    images = Images(np.repeat([0, 1], [14, 2]), np.zeros((16, 8, 8, 1), np.uint8), None)
    data = Data("made", ("a", "b"), images, images, images, 8, 1, (0.5,), (0.5,))
    config = config_of(crop="pad", crop_padding=4)
    config.dataset.balance = "oversample"
    batches = TrainBatches(config, data)
    assert len(batches) == 8  # as many as without it
    epoch = [batches[step] for step in range(4)]
    indices = np.concatenate([batch["index"] for batch in epoch])
    assert np.bincount(images.labels[indices]).tolist() == [8, 8]
    assert np.array_equal(indices, np.concatenate([batches.list_indices(step) for step in range(4)]))
    rows = np.concatenate([batch["rows"] for batch in epoch])
    repeated = rows[indices == 15]
    assert len(repeated) == 4
    assert len(np.unique(repeated, axis=0)) > 1


def test_without_balance_nothing_moves():
    batches = TrainBatches(config_of(crop="pad", crop_padding=1), data_of(10))
    assert batches.balanced is None
    assert batches.list_indices(1).tolist() == order_epoch(10, 3, 0)[4:8].tolist()
