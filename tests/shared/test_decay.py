"""Which parameters decay."""

import pytest

from shared.training.decay import is_decayed


@pytest.mark.parametrize(("name", "shape", "expected"), [
    ("conv1.weight", (64, 3, 7, 7), True), ("fc.weight", (10, 512), True), ("conv.weight", (8, 4, 3), True),
    ("conv.weight", (8, 4, 3, 3, 3), True), ("fc.bias", (10,), False), ("bn1.weight", (64,), False),
    ("cls_token", (1, 1, 192), False), ("tokens/pos_embed", (1, 65, 192), False), ("act/alpha", (1, 1, 32), False),
])
def test_kernels_and_matrices_decay(name, shape, expected):
    assert is_decayed(name, shape, norm_and_bias=False) is expected
    assert is_decayed(name, shape, norm_and_bias=True)
