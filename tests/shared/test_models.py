"""The zoo in numbers."""

import dataclasses
import subprocess
import sys

import pytest

from shared.config import ModelConfig, list_keys
from shared.errors import UserError
from shared.machine.files import REPOSITORY
from shared.models import (
    MODELS,
    OPTIONAL_SETTINGS,
    choose_patch,
    choose_stem,
    scale_efficientnet,
    split_library_name,
    spread_depth_rates,
)


def test_the_choices_of_the_schema_follow_from_the_table():
    assert list_keys()["model.name"].metadata["choices"] == tuple(MODELS)


def test_an_entry_names_only_settings_that_there_are():
    for name, entry in MODELS.items():
        assert set(entry.settings) <= set(OPTIONAL_SETTINGS), name
    assert {field.name for field in dataclasses.fields(ModelConfig)} >= set(OPTIONAL_SETTINGS)


def test_a_library_is_named_before_a_colon():
    assert split_library_name("timm:convnext_nano") == ("timm", "convnext_nano")
    assert split_library_name("keras:ResNet50") == ("keras", "ResNet50")
    assert split_library_name("resnet18") is None


def test_efficientnets_have_the_published_shapes():
    # Table 1 of arXiv:1905.11946 for the B0; the B3 is 1.2 times as wide, in eights, and 1.4 times as deep, rounded up.
    stem, stages, last = scale_efficientnet("efficientnet_b0")
    assert (stem, last) == (32, 1280)
    assert [stage.channels for stage in stages] == [16, 24, 40, 80, 112, 192, 320]
    assert [stage.blocks for stage in stages] == [1, 2, 2, 3, 3, 4, 1]
    stem, stages, last = scale_efficientnet("efficientnet_b3")
    assert (stem, last) == (40, 1536)
    assert [stage.channels for stage in stages] == [24, 32, 48, 96, 136, 232, 384]
    assert [stage.blocks for stage in stages] == [2, 3, 3, 5, 5, 6, 2]


def test_branches_are_dropped_more_often_towards_the_end():
    assert spread_depth_rates(0.2, 5) == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert spread_depth_rates(0.2, 1) == [0]


def test_stem_and_patches_follow_the_image_unless_they_are_named():
    assert [choose_stem("auto", size) for size in (8, 64, 65, 224)] == ["small", "small", "large", "large"]
    assert choose_stem("large", 8) == "large"
    assert [choose_patch(0, size) for size in (32, 64, 224)] == [4, 4, 16]
    assert choose_patch(8, 32) == 8


def test_an_image_of_broken_patches_is_refused():
    with pytest.raises(UserError, match=r"100 pixels are not made of whole patches of 16; set dataset\.image_size to a "
                                        r"multiple such as 96, or model\.patch_size"):
        choose_patch(0, 100)


def test_the_command_lists_every_model():
    done = subprocess.run([sys.executable, "-m", "shared.models"], cwd=REPOSITORY, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stderr
    for name, entry in MODELS.items():
        line = next(line for line in done.stdout.splitlines() if line.split(maxsplit=1)[:1] == [name])
        if entry.published:
            assert f"{entry.published.parameters:,}" in line
            assert line.endswith(entry.published.checkpoint)
