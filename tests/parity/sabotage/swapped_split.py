"""One training image and one validation image of the same class change places."""

from shared import datasets

original = datasets.split


def split(labels, fraction, seed):
    train, val = (indices.copy() for indices in original(labels, fraction, seed))
    twin = next(place for place, index in enumerate(train) if labels[index] == labels[val[0]])
    train[twin], val[0] = val[0], train[twin]
    return train, val


datasets.split = split
