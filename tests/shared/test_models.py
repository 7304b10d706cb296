"""The zoo in numbers."""

import subprocess
import sys

import pytest

from shared.config import REPOSITORY, ModelConfig, schema
from shared.errors import UserError
from shared.models import FIRST_KERNELS, HEADS, ZOO, depth_rates, efficientnet_shape, family_of, patch_of, stem_of


def test_every_model_of_the_zoo_is_in_the_schema_and_has_a_family():
    names = set(schema()["model.name"].metadata["choices"])
    assert names >= set(ZOO)  # one's own have no entry there
    assert {family_of(name) for name in names} == set(HEADS) == set(FIRST_KERNELS)


def test_a_model_of_ones_own_may_begin_as_another_family_does(monkeypatch):
    monkeypatch.setitem(HEADS, "vit_own", ("last.weight", "last.bias"))
    assert family_of("vit_own_large") == "vit_own"
    assert family_of("vit_tiny") == "vit"


def test_efficientnets_have_the_published_shapes():
    # Table 1 of arXiv:1905.11946 for the B0; the B3 is 1.2 times as wide, in eights, and 1.4 times as deep, rounded up.
    stem, stages, last = efficientnet_shape("efficientnet_b0")
    assert (stem, last) == (32, 1280)
    assert [stage.channels for stage in stages] == [16, 24, 40, 80, 112, 192, 320]
    assert [stage.blocks for stage in stages] == [1, 2, 2, 3, 3, 4, 1]
    stem, stages, last = efficientnet_shape("efficientnet_b3")
    assert (stem, last) == (40, 1536)
    assert [stage.channels for stage in stages] == [24, 32, 48, 96, 136, 232, 384]
    assert [stage.blocks for stage in stages] == [2, 3, 3, 5, 5, 6, 2]


def test_branches_are_dropped_more_often_towards_the_end():
    assert depth_rates(0.2, 5) == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert depth_rates(0.2, 1) == [0]


def test_stem_and_patches_follow_the_image_unless_they_are_named():
    assert [stem_of(ModelConfig(), size) for size in (8, 64, 65, 224)] == ["small", "small", "large", "large"]
    assert stem_of(ModelConfig(stem="large"), 8) == "large"
    assert [patch_of(ModelConfig(), size) for size in (32, 64, 224)] == [4, 4, 16]
    assert patch_of(ModelConfig(patch_size=8), 32) == 8


def test_an_image_of_broken_patches_is_refused():
    with pytest.raises(UserError, match=r"100 pixels are not made of whole patches of 16; set dataset\.image_size to a "
                                        r"multiple such as 96, or model\.patch_size"):
        patch_of(ModelConfig(), 100)


def test_the_command_lists_every_model():
    done = subprocess.run([sys.executable, "-m", "shared.models"], cwd=REPOSITORY, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stderr
    for name, entry in ZOO.items():
        line = next(line for line in done.stdout.splitlines() if line.split(maxsplit=1)[:1] == [name])
        assert f"{entry.parameters:,}" in line
        assert line.endswith(entry.checkpoint)
