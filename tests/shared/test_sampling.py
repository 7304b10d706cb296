"""Split, order and the random streams under them."""

import numpy as np
import pytest

from shared.datasets.sampling import (
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

@pytest.mark.parametrize(("sizes", "count", "expected"), [
    ((10, 20, 70), 10, (1, 2, 7)),
    ((10, 10, 10), 10, (4, 3, 3)),      # a tie goes to the lower class
    ((4, 3, 3), 5, (2, 2, 1)),          # quotas 2, 1.5, 1.5
    ((1, 1, 98), 10, (0, 0, 10)),       # quotas 0.1, 0.1, 9.8
    ((81, 11, 8), 10, (8, 1, 1)),       # quotas 8.1, 1.1, 0.8
    # Quotas 8.1, 2.1, 1.1 and seven times 0.1: the one image left over goes to the first of ten equal remainders. In
    # floating point 1.1 - 1 is the largest of them.
    ((81, 21, 11, 1, 1, 1, 1, 1, 1, 1), 12, (9, 2, 1, 0, 0, 0, 0, 0, 0, 0)),
    ((5, 5), 0, (0, 0)), ((5, 5), 10, (5, 5)),
])
def test_each_class_keeps_its_share(sizes, count, expected):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    chosen = choose_stratified(labels, count, 0)
    assert np.bincount(labels[chosen], minlength=len(sizes)).tolist() == list(expected)
    assert chosen.dtype == np.int64
    assert np.array_equal(chosen, np.unique(chosen))


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
