"""Which images train, and in which order: pure functions of (seed, epoch, index), the same in every process.

Everything random here, in `batches/augment.py` and in `weights/initial.py` comes from the raw output of Philox, a
counter-based generator. NumPy guarantees that this output stays the same in all its versions. It does not guarantee it
for methods of `Generator` such as `permutation` (NEP 19), and each sibling may have another version of NumPy.
"""

import hashlib

import numpy as np

# One number per use, so that no two uses of a seed share a stream.
SPLIT, LIMIT, ORDER, AUGMENT, WEIGHTS, STEPS, BALANCE, TIES, EXAMPLES = range(9)

# Test images that this repository sets apart are drawn with this seed instead of config.seed, so that they stay the
# same when config.seed changes. It is larger than any value of config.seed.
FIXED_SEED = 2**31


def draw_bits(count: int, *key: int) -> np.ndarray:
    """`count` random numbers, (count,) uint64, that depend on nothing but `key`."""
    return np.random.Philox(np.random.SeedSequence(key)).random_raw(count)


def draw_uniforms(count: int, *key: int) -> np.ndarray:
    """`count` numbers in [0, 1), (count,) float64, from the upper 53 bits of `draw_bits`."""
    return (draw_bits(count, *key) >> np.uint64(11)) * 2.0**-53


def choose_stratified(labels: np.ndarray, count: int, *key: int, spare: int = 0) -> np.ndarray:
    """At most `count` indices, (k,) int64, ascending, among which each class has the share that it has in `labels`.

    They are fewer than `count` only where each class has to spare so many images, which are not chosen.
    """
    assert 0 <= count <= len(labels), f"{count} of {len(labels)}"
    classes, sizes = np.unique(labels, return_counts=True)
    take = share_places(sizes, count, np.maximum(sizes - spare, 0), draw_bits(len(sizes), *key, TIES))
    rank = draw_bits(len(labels), *key)
    chosen = []
    for label, number in zip(classes, take, strict=True):
        members = np.flatnonzero(labels == label)
        chosen.append(members[np.argsort(rank[members], kind="stable")[:number]])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def share_places(sizes: np.ndarray, count: int, most: np.ndarray, lots: np.ndarray) -> np.ndarray:
    """How many of `count` places each class of so many images gets, (K,) int64: no more than `most` of each class.

    Each class gets the whole part of its quota. The places that are left go to the classes with the largest remainders;
    of equal remainders the `lots` of the classes decide, because names must not: the last of the alphabet would have
    no test image for any seed. Where there is a place for every class, each has one at least, and those that have the
    most above their quota give it.
    """
    order = np.argsort(lots, kind="stable")  # argmax takes the first of equals
    sizes, most = sizes[order], most[order]
    count, total = min(count, int(most.sum())), max(int(sizes.sum()), 1)
    least = np.minimum(most, 1) * (count >= np.count_nonzero(most))
    take = np.clip(sizes * count // total, least, most)
    while left := count - int(take.sum()):
        step, is_open = (1, take < most) if left > 0 else (-1, take > least)
        # In whole numbers, because with fractions a rounding error could decide between equal remainders.
        owed = step * (sizes * count - take * total)
        take[np.argmax(np.where(is_open, owed, np.iinfo(np.int64).min))] += step
    return take[np.argsort(order)]


def split_stratified(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to train with and to validate or test with, both ascending int64, stratified by class.

    No class loses its last image to train with.
    """
    held_out = choose_stratified(labels, round(len(labels) * fraction), seed, SPLIT, spare=1)
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def order_epoch(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits `n` samples: a permutation, (n,) int64."""
    return np.argsort(draw_bits(n, seed, ORDER, epoch), kind="stable")


def order_epoch_balanced(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch that shows every class equally often, (n,) int64, as long as that of `order_epoch`.

    Each of the K classes gets n // K places. The places that are left go to the classes in turn, in an order drawn from
    the seed; an epoch goes on where the one before it stopped. A class shows its images in a random order, then in
    another one, and so on, across epochs, so that no image is seen again before all others of its class have been.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    number, left = len(classes), len(labels) % len(classes)
    turn = np.argsort(np.argsort(draw_bits(number, seed, BALANCE), kind="stable"))  # when each class has its turn

    def count_places(epochs: int) -> np.ndarray:
        """How many places each class has had in so many epochs."""
        return epochs * (len(labels) // number) + epochs * left // number + (turn < epochs * left % number)

    chosen = []
    for label, size, first, end in zip(classes.tolist(), sizes.tolist(), count_places(epoch).tolist(),
                                       count_places(epoch + 1).tolist(), strict=True):
        members = np.flatnonzero(labels == label)
        row = [members[np.argsort(draw_bits(size, seed, BALANCE, label, part), kind="stable")]
               for part in range(first // size, -(-end // size))]
        chosen.append(np.concatenate(row)[first % size:][:end - first])
    return np.concatenate(chosen)[order_epoch(len(labels), seed, epoch)]


def fingerprint(*arrays: np.ndarray) -> str:
    """16 hexadecimal digits that change when dtype, shape or content of any array changes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def derive_step_seed(seed: int, step: int, rank: int = 0) -> int:
    """A seed of 32 bits for a framework's own generator, for training step `step` in process `rank`."""
    return int(np.random.SeedSequence([seed, STEPS, step, rank]).generate_state(1)[0])
