"""Split, order and the random streams under them."""

import numpy as np
import pytest

from shared.data.sampling import (
    choose_stratified,
    draw_bits,
    draw_uniforms,
    fingerprint,
    order_epoch,
    order_epoch_balanced,
    split_stratified,
)


# Frozen: a change of any of these changes every experiment that was ever run.
def test_random_streams_have_not_moved():
    assert draw_bits(3, 0, 1).tolist() == [11203925021116910928, 9292188272879797859, 7916535459903532691]
    assert draw_uniforms(2, 7, 2, 5).tolist() == [0.9942156413205644, 0.30867936999420553]
    assert fingerprint(draw_bits(1000, 1, 2, 3)) == "7c42dda2a17fd5a7"


def test_orders_have_not_moved():
    assert order_epoch(8, seed=0, epoch=0).tolist() == [4, 3, 7, 6, 5, 2, 0, 1]
    assert order_epoch(8, seed=0, epoch=1).tolist() == [0, 4, 2, 6, 7, 5, 1, 3]
    assert fingerprint(order_epoch(50_000, seed=3, epoch=17)) == "ef4c700c5d6c713a"


def test_splits_have_not_moved():
    assert split_stratified(np.arange(20) % 4, 0.2, seed=0)[1].tolist() == [0, 9, 18, 19]
    assert fingerprint(*split_stratified(np.arange(5_000) % 10, 0.1, seed=3)) == "7a56d6057569e0e0"


# Streams

def test_streams_of_different_keys_differ_and_longer_ones_go_on():
    assert np.array_equal(draw_bits(10, 1, 2)[:4], draw_bits(4, 1, 2))
    streams = [draw_bits(4, *key).tobytes() for key in ((0, 0), (0, 1), (1, 0), (0, 1, 1), (0, 2, 1), (0, 2, 2))]
    assert len(set(streams)) == len(streams)


def test_uniforms_lie_in_0_to_1_and_fill_it_evenly():
    draws = draw_uniforms(100_000, 5)
    assert draws.dtype == np.float64
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.allclose(np.histogram(draws, 10, (0, 1))[0], 10_000, atol=400)  # 4 standard deviations of 95


# Choice and split

def count_chosen(sizes, count, *key, spare=0):
    """How many images of each class are chosen, of so many that it has."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    chosen = choose_stratified(labels, count, *key or (0,), spare=spare)
    assert chosen.dtype == np.int64
    assert np.array_equal(chosen, np.unique(chosen))
    return np.bincount(labels[chosen], minlength=len(sizes)).tolist()


@pytest.mark.parametrize(("sizes", "count", "expected"), [
    ((10, 20, 70), 10, (1, 2, 7)),
    ((81, 11, 8), 10, (8, 1, 1)),           # quotas 8.1, 1.1, 0.8
    ((41, 33, 26), 10, (4, 3, 3)),          # quotas 4.1, 3.3, 2.6
    ((1, 1, 98), 2, (0, 0, 2)),             # fewer places than classes
    ((1, 1, 98), 10, (1, 1, 8)),            # quotas 0.1, 0.1, 9.8: a place for every class
    ((2, 3, 45, 50), 10, (1, 1, 4, 4)),     # quotas 0.4, 0.6, 9 and 10 of 10: the largest give most
    ((5, 5), 0, (0, 0)), ((5, 5), 10, (5, 5)),
])
def test_each_class_keeps_its_share_and_has_one_where_there_is_room(sizes, count, expected):
    assert count_chosen(sizes, count) == list(expected)


@pytest.mark.parametrize(("sizes", "count", "expected"), [
    ((10, 10, 10), 10, (3, 3, 4)),
    ((4, 3, 3), 5, (1, 2, 2)),              # quotas 2, 1.5, 1.5
    ((7,) * 20, 7, (0,) * 13 + (1,) * 7),
])
def test_lots_decide_between_equal_remainders(sizes, count, expected):
    drawn = [count_chosen(sizes, count, seed) for seed in range(40)]
    assert {tuple(sorted(counts)) for counts in drawn} == {expected}
    tied = [place for place, size in enumerate(sizes) if size == sizes[-1]]
    shares = np.array(drawn)[:, tied].mean(axis=0)
    assert len({tuple(counts) for counts in drawn}) > 1
    assert np.ptp(shares) < 0.5  # where the lower class came first, the first had one more than the last every time
    assert count_chosen(sizes, count, 3) == drawn[3]


def test_remainders_are_equal_in_whole_numbers():
    """Quotas 2.1 and nine times 1.1: in floating point 1.1 - 1 and 2.1 - 2 differ, and one class would always win."""
    winners = {np.argmax(np.array(count_chosen((21, *(11,) * 9), 12, seed)) - (2, *(1,) * 9)) for seed in range(100)}
    assert winners == set(range(10))


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 2, 1), (1, 50, 3), (5,) * 20])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_no_class_loses_its_last_image_to_train_with(sizes, fraction):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    train, held_out = split_stratified(labels, fraction, seed=0)
    assert np.bincount(labels[train], minlength=len(sizes)).min() >= 1
    able = np.count_nonzero(np.array(sizes) > 1)
    wanted = round(fraction * len(labels))
    assert len(held_out) == min(wanted, len(labels) - len(sizes))
    if wanted >= able:
        assert len(np.unique(labels[held_out])) == able


def test_choice_of_nothing_from_nothing():
    assert choose_stratified(np.empty(0, np.int64), 0, 0).tolist() == []


def test_split_has_no_overlap_leaves_nothing_out_and_depends_on_the_seed():
    labels = np.random.default_rng(0).integers(0, 5, 503)
    train, val = split_stratified(labels, 0.1, seed=1)
    assert len(val) == 50
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(503))
    assert np.array_equal(split_stratified(labels, 0.1, seed=1)[1], val)
    assert not np.array_equal(split_stratified(labels, 0.1, seed=2)[1], val)
    assert not split_stratified(labels, 0.0, seed=1)[1].size


# Order

def test_an_order_is_a_permutation_of_its_own_for_each_seed_and_epoch():
    orders = [order_epoch(100, seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert all(np.array_equal(np.sort(order), np.arange(100)) for order in orders)
    assert len({order.tobytes() for order in orders}) == 6
    assert orders[0].dtype == np.int64


# Fingerprint

def test_a_fingerprint_sees_dtype_shape_content_and_order():
    base = np.arange(6, dtype=np.int64)
    others = [base.astype(np.int32), base.astype(np.uint64), base.reshape(2, 3), base.reshape(3, 2), base + 1,
              base[::-1], base[:0], np.array(["a", "b"]), np.array(["a", "c"]), np.float64(1.5).reshape(())]
    assert len({fingerprint(array) for array in [base, *others]}) == len(others) + 1
    assert fingerprint(base, others[0]) != fingerprint(others[0], base)
    assert fingerprint(base) == fingerprint(np.arange(12)[::2] // 2)  # a view with gaps counts by its content
    assert len(fingerprint(base)) == 16


# Balanced orders

UNEVEN = np.repeat([0, 1, 2], [50, 7, 3])


def test_a_balanced_order_has_not_moved():
    assert order_epoch_balanced(np.repeat([0, 1], [5, 2]), seed=0, epoch=1).tolist() == [0, 6, 4, 6, 5, 3, 0]


def test_a_balanced_order_shows_every_class_equally_often_in_as_many_images():
    for epoch in range(5):
        order = order_epoch_balanced(UNEVEN, 4, epoch)
        assert np.bincount(UNEVEN[order]).tolist() == [20, 20, 20]
    uneven = np.repeat([0, 1, 2], [50, 8, 3])  # 61 images: one place is left in each epoch and goes round
    counts = np.array([np.bincount(uneven[order_epoch_balanced(uneven, 4, epoch)]) for epoch in range(6)])
    assert (counts.sum(axis=1) == 61).all()
    assert (counts.sum(axis=0) == 6 * 20 + 2).all()


def test_no_image_is_seen_again_before_all_others_of_its_class():
    uneven = np.repeat([0, 1, 2], [50, 8, 3])
    orders = [order_epoch_balanced(uneven, 4, epoch) for epoch in range(9)]
    assert not np.array_equal(orders[0], orders[1])
    for label in range(3):
        seen = [np.bincount(order[uneven[order] == label], minlength=61)[uneven == label] for order in orders]
        totals = np.cumsum(seen, axis=0)
        assert (totals.max(axis=1) - totals.min(axis=1) <= 1).all()


def test_a_balanced_order_depends_on_seed_and_epoch_alone():
    assert np.array_equal(order_epoch_balanced(UNEVEN, 1, 3), order_epoch_balanced(UNEVEN, 1, 3))
    assert not np.array_equal(order_epoch_balanced(UNEVEN, 1, 3), order_epoch_balanced(UNEVEN, 2, 3))
