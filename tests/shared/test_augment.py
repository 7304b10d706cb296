"""Draws, boxes and matrices against Pillow and against plain loops."""

import numpy as np
import pytest
from PIL import Image

from shared.config import AugmentConfig
from shared.data import augment
from shared.data.augment import (
    AREA,
    ASPECT,
    BOX_X,
    BOX_Y,
    FLIP,
    KIND,
    LEFT,
    MIX,
    SHARE,
    TOP,
    build_geometry,
    build_resampling,
    build_shifts,
    choose_flips,
    choose_mixing,
    choose_offsets,
    choose_resized_boxes,
    draw_epoch,
    uses_mixing,
)
from shared.data.sampling import fingerprint


def draws_of(n=1, **named):
    """Draws of 0.5, other than those that are named."""
    draws = np.full((n, 10), 0.5)
    for name, values in named.items():
        draws[:, getattr(augment, name)] = values
    return draws


def apply(matrices, images):
    """rows @ image @ columns.T of each (n, H, W) image, in float64."""
    rows, columns = (matrix.astype(np.float64) for matrix in matrices)
    return rows @ images @ np.swapaxes(columns, 1, 2)


# Draws

def test_draws_have_not_moved():
    assert draw_epoch(2, 0, 0)[0, :3].tolist() == [0.9484387934888344, 0.19448991028217089, 0.257244019619319]
    assert fingerprint(draw_epoch(5000, 3, 17)) == "ea93948f4d38cb5c"


def test_a_row_of_draws_depends_on_seed_epoch_and_index_alone():
    assert np.array_equal(draw_epoch(100, 1, 2)[:7], draw_epoch(7, 1, 2))
    others = [draw_epoch(5, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({other.tobytes() for other in others}) == 4
    columns = draw_epoch(2000, 1, 2)
    assert np.abs(np.corrcoef(columns.T) - np.eye(10)).max() < 0.1


def test_each_draw_decides_one_thing():
    assert sorted((TOP, LEFT, FLIP, AREA, ASPECT, MIX, KIND, SHARE, BOX_Y, BOX_X)) == list(range(10))


# Crops

def test_offsets_are_even_over_the_padding_and_reach_both_ends():
    settings = AugmentConfig(crop="pad", crop_padding=2)
    draws = draws_of(10, TOP=np.arange(10) / 10, LEFT=np.nextafter(1, 0))
    assert choose_offsets(settings, draws)[:, 0].tolist() == [-2, -2, -1, -1, 0, 0, 1, 1, 2, 2]
    assert (choose_offsets(settings, draws)[:, 1] == 2).all()


@pytest.mark.parametrize(("fill", "mode"), [("zeros", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("padding", [1, 3, 9])
def test_a_padded_crop_is_the_window_of_the_padded_image(padding, fill, mode):
    settings, draws = AugmentConfig(crop="pad", crop_padding=padding, crop_fill=fill), draw_epoch(20, 0, 0)
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8)).astype(float)
    cropped = apply(build_geometry(settings, draws, 8, 8, 8), images)
    for image, crop, offset in zip(images, cropped, choose_offsets(settings, draws), strict=True):
        top, left = offset + padding
        assert np.array_equal(crop, np.pad(image, padding, mode)[top:top + 8, left:left + 8])


def test_shift_moves_zeros_in():
    moved = build_shifts(np.array([0, 1, -2]), 4) @ np.array([1, 2, 3, 4])
    assert moved.tolist() == [[1, 2, 3, 4], [2, 3, 4, 0], [0, 0, 1, 2]]
    mirrored = build_shifts(np.array([0, 1, -2]), 4, "reflect") @ np.array([1, 2, 3, 4])
    assert mirrored.tolist() == [[1, 2, 3, 4], [2, 3, 4, 3], [3, 2, 1, 2]]


def test_a_resized_box_by_hand():
    settings = AugmentConfig(crop="resized", min_area=0.25, max_aspect=4.0)
    # The smallest area, a quarter of 100, at even odds in aspect: 5 x 5, in the middle of the room that is left.
    assert choose_resized_boxes(settings, draws_of(AREA=0.0), 10, 10).tolist() == [[2.5, 2.5, 5.0, 5.0]]
    # Aspect 4 of the same area: 10 wide and 2.5 high.
    tall = choose_resized_boxes(settings, draws_of(AREA=0.0, ASPECT=np.nextafter(1, 0), TOP=0.0), 10, 10)
    assert tall.tolist()[0] == pytest.approx([0, 0, 2.5, 10])
    wide = choose_resized_boxes(settings, draws_of(AREA=0.0, ASPECT=0.0, LEFT=np.nextafter(1, 0)), 10, 10)
    assert wide.tolist()[0] == pytest.approx([0, 7.5, 10, 2.5])
    # The whole area in aspect 4 does not fit: its longer side is cut.
    cut = choose_resized_boxes(settings, draws_of(AREA=np.nextafter(1, 0), ASPECT=np.nextafter(1, 0)), 10, 10)
    assert cut.tolist()[0] == pytest.approx([2.5, 0, 5, 10])


@pytest.mark.parametrize(("height", "width"), [(10, 10), (480, 640), (70, 40)])
def test_resized_boxes_lie_inside_and_have_the_asked_area(height, width):
    settings = AugmentConfig(crop="resized", min_area=0.2, max_aspect=4 / 3)
    top, left, box_height, box_width = choose_resized_boxes(settings, draw_epoch(3000, 0, 0), height, width).T
    assert min(top.min(), left.min()) >= 0
    assert (top + box_height).max() <= height * (1 + 1e-12)
    assert (left + box_width).max() <= width * (1 + 1e-12)
    share = box_height * box_width / (height * width)
    whole = (box_height < height) & (box_width < width)  # nothing was cut
    assert share[whole].min() >= 0.2 * (1 - 1e-12)
    assert share.max() <= 1 + 1e-12
    aspect = (box_width / box_height)[whole]
    assert aspect.min() >= 3 / 4 - 1e-12
    assert aspect.max() <= 4 / 3 + 1e-12
    if height == width:
        assert share.mean() == pytest.approx(0.6, abs=0.05)


# Resampling, against Pillow

@pytest.mark.parametrize("size_out", [5, 8, 13, 32])
@pytest.mark.parametrize("box", [(0, 0, 20, 24), (3, 2, 8, 8), (2.3, 7.9, 11.6, 4.2), (0.5, 0.25, 19.5, 23.75),
                                 (10.1, 10.1, 1.3, 1.7)])
def test_resampling_is_pillows(size_out, box):
    top, left, height, width = box
    image = np.random.default_rng(0).integers(0, 256, (20, 24)).astype(np.uint8)
    matrices = (build_resampling(np.array([top]), np.array([height]), 20, size_out),
                build_resampling(np.array([left]), np.array([width]), 24, size_out))
    ours = apply(matrices, image[None].astype(float))[0]
    edges = (left, top, left + width, top + height)
    exact = Image.fromarray(image.astype(np.float32)).resize((size_out, size_out), Image.Resampling.BILINEAR, edges)
    assert np.abs(ours - np.array(exact)).max() < 1e-3
    eight_bit = Image.fromarray(image).resize((size_out, size_out), Image.Resampling.BILINEAR, edges)
    assert np.abs(ours - np.array(eight_bit, np.float64)).max() <= 1  # Pillow rounds between its two passes


def test_a_central_part_is_pillows():
    image = np.random.default_rng(0).integers(0, 256, (20, 24)).astype(np.uint8)
    matrices = build_geometry(AugmentConfig(crop="none"), None, 20, 24, 16, "bilinear", 0.75)
    ours = apply(matrices, image[None].astype(float))[0]
    reference = Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR, (3, 2.5, 21, 17.5))
    assert np.abs(ours - np.array(reference, np.float64)).max() <= 1


def test_a_resized_crop_is_pillows():
    settings, draws = AugmentConfig(crop="resized", min_area=0.1), draw_epoch(10, 0, 0)
    images = np.random.default_rng(0).integers(0, 256, (10, 20, 24)).astype(np.uint8)
    ours = apply(build_geometry(settings, draws, 20, 24, 16), images.astype(float))
    for image, crop, box in zip(images, ours, choose_resized_boxes(settings, draws, 20, 24), strict=True):
        top, left, height, width = box
        reference = Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR,
                                                  (left, top, min(left + width, 24), min(top + height, 20)))
        assert np.abs(crop - np.array(reference, np.float64)).max() <= 1


def test_rows_of_a_resampling_matrix_sum_to_one_and_the_same_size_is_exact():
    matrices = build_resampling(np.array([0.0, 3.7]), np.array([16.0, 2.2]), 16, 9)
    assert matrices.shape == (2, 9, 16)
    assert matrices.dtype == np.float32
    assert matrices.sum(-1) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(build_resampling(np.zeros(1), np.array([7.0]), 7, 7)[0], np.eye(7))


# Which geometry

@pytest.mark.parametrize(("settings", "drawn", "stored", "size", "shapes"), [
    (AugmentConfig(crop="pad", crop_padding=1), False, (8, 8), 8, None),
    (AugmentConfig(crop="none"), True, (8, 8), 8, None),
    (AugmentConfig(crop="pad", crop_padding=0), True, (8, 8), 8, None),
    (AugmentConfig(crop="resized"), False, (8, 8), 8, None),        # evaluation sees the whole image
    (AugmentConfig(crop="none"), True, (6, 9), 8, [(1, 8, 6), (1, 8, 9)]),
    (AugmentConfig(crop="pad"), False, (6, 9), 8, [(1, 8, 6), (1, 8, 9)]),
    (AugmentConfig(crop="pad"), True, (8, 8), 8, [(3, 8, 8), (3, 8, 8)]),
    (AugmentConfig(crop="pad"), True, (6, 9), 8, [(3, 8, 6), (3, 8, 9)]),
    (AugmentConfig(crop="resized"), True, (8, 8), 8, [(3, 8, 8), (3, 8, 8)]),
    (AugmentConfig(crop="resized"), True, (6, 9), 8, [(3, 8, 6), (3, 8, 9)]),
])
def test_there_are_matrices_only_where_something_moves(settings, drawn, stored, size, shapes):
    found = build_geometry(settings, draw_epoch(3, 0, 0) if drawn else None, *stored, size)
    assert (found if found is None else [matrix.shape for matrix in found]) == shapes
    assert found is None or {matrix.dtype for matrix in found} == {np.dtype(np.float32)}


def test_an_image_is_resized_first_and_then_moved():
    settings, draws = AugmentConfig(crop="pad", crop_padding=2), draws_of(1, TOP=0.99, LEFT=0.0)
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 9)).astype(float)
    resized = apply(build_geometry(settings, None, 6, 9, 8), image)[0]
    moved = apply(build_geometry(settings, draws, 6, 9, 8), image)[0]
    assert moved == pytest.approx(np.pad(resized, 2)[4:12, 0:8], abs=1e-4)


def test_flips_are_half_of_all_or_none():
    draws = draws_of(4, FLIP=[0.0, 0.4999, 0.5, 0.9])
    assert choose_flips(AugmentConfig(flip=True), draws).tolist() == [True, True, False, False]
    assert not choose_flips(AugmentConfig(flip=False), draws).any()


def test_alternating_flips_show_each_image_from_both_sides_in_any_two_epochs():
    settings = AugmentConfig(flip=True, alternating_flip=True)
    flips = np.array([choose_flips(settings, draw_epoch(1000, 3, epoch, True)) for epoch in range(4)])
    assert np.array_equal(flips[0], choose_flips(settings, draw_epoch(1000, 3, 0)))
    assert 450 < flips[0].sum() < 550
    assert (flips[:-1] != flips[1:]).all()
    others = [column for column in range(10) if column != FLIP]  # the rest is drawn anew in each epoch
    assert np.array_equal(draw_epoch(9, 3, 1, True)[:, others], draw_epoch(9, 3, 1)[:, others])
    assert np.array_equal(draw_epoch(1000, 3, 3, True)[:7], draw_epoch(7, 3, 3, True))


# Mixing

@pytest.mark.parametrize(("settings", "expected"), [
    (AugmentConfig(), False), (AugmentConfig(mixup_alpha=0.2), True), (AugmentConfig(cutmix_alpha=1.0), True),
    (AugmentConfig(mixup_alpha=0.2, mix_probability=0.0), False),
])
def test_whether_anything_is_mixed(settings, expected):
    assert uses_mixing(settings) is expected


@pytest.mark.parametrize(("n", "partners"), [(1, [0]), (2, [1, 0]), (5, [1, 0, 3, 2, 4]), (6, [1, 0, 3, 2, 5, 4])])
def test_partners_are_neighbours(n, partners):
    assert choose_mixing(AugmentConfig(mixup_alpha=1.0), draws_of(n), 8)["partner"].tolist() == partners


def test_mixup_by_hand():
    """Beta(1, 1) is uniform, so that the draw itself is lambda."""
    found = choose_mixing(AugmentConfig(mixup_alpha=1.0), draws_of(3, SHARE=[0.25, 0.5, 0.75]), 8)
    assert found["opacity"].tolist() == pytest.approx([0.25, 0.5, 0.75])
    assert found["share"].tolist() == pytest.approx([0.25, 0.5, 0.75])
    assert not found["box"].any()
    assert [found[name].dtype for name in ("partner", "box", "opacity", "share")] == [np.int32] * 2 + [np.float32] * 2


def test_cutmix_by_hand():
    """Lambda 0.75 leaves a quarter of 8 x 8: a box of 4 x 4 about its centre, cut at the edge."""
    draws = draws_of(3, SHARE=0.75, BOX_Y=[0.5, 0.0, 0.99], BOX_X=[0.5, 0.5, 0.99])
    found = choose_mixing(AugmentConfig(cutmix_alpha=1.0), draws, 8)
    assert found["box"].tolist() == [[2, 2, 6, 6], [0, 2, 2, 6], [5, 5, 8, 8]]
    assert found["share"].tolist() == pytest.approx([1 - 16 / 64, 1 - 8 / 64, 1 - 9 / 64])
    assert found["opacity"].tolist() == [1, 1, 1]


def test_cutmix_shares_are_the_pixels_that_stay():
    found = choose_mixing(AugmentConfig(cutmix_alpha=1.0), draw_epoch(500, 0, 0), 11)
    for box, share in zip(found["box"], found["share"], strict=True):
        inside = np.zeros((11, 11), bool)
        inside[box[0]:box[2], box[1]:box[3]] = True
        assert share == pytest.approx(1 - inside.mean())


def test_cutmix_keeps_more_than_half_since_boxes_are_cut_at_the_edge():
    """A side of l = sqrt(u) keeps l - l^2 / 4 of its axis on average, and E[(l - l^2 / 4)^2] = 1/2 - 1/5 + 1/48."""
    share = choose_mixing(AugmentConfig(cutmix_alpha=1.0), draw_epoch(20_000, 0, 0), 10_000)["share"]
    assert share.mean() == pytest.approx(1 - (1 / 2 - 1 / 5 + 1 / 48), abs=0.01)


def test_with_both_each_image_takes_one_at_even_odds():
    settings = AugmentConfig(mixup_alpha=1.0, cutmix_alpha=1.0)
    found = choose_mixing(settings, draws_of(2, KIND=[0.4999, 0.5], SHARE=0.75), 8)
    assert found["box"].tolist() == [[2, 2, 6, 6], [0, 0, 0, 0]]
    assert found["opacity"].tolist() == [1, 0.75]
    assert found["share"].tolist() == [0.75, 0.75]


def test_an_image_that_is_not_chosen_stays_whole():
    found = choose_mixing(AugmentConfig(mixup_alpha=1.0, cutmix_alpha=1.0, mix_probability=0.3),
                   draws_of(2, MIX=[0.3, 0.3], KIND=[0.0, 0.9], SHARE=0.1), 8)
    assert not found["box"].any()
    assert (found["opacity"] == 1).all()
    assert (found["share"] == 1).all()


@pytest.mark.parametrize("alpha", [1e-3, 0.2, 1.0, 100.0])
def test_lambda_follows_the_beta_distribution(alpha):
    share = choose_mixing(AugmentConfig(mixup_alpha=alpha), draw_epoch(20_000, 0, 0), 8)["opacity"].astype(np.float64)
    assert np.isfinite(share).all()
    assert share.min() >= 0
    assert share.max() <= 1
    assert share.mean() == pytest.approx(0.5, abs=0.02)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


@pytest.mark.parametrize("size_out", [5, 12, 31])
def test_bicubic_resampling_is_pillows(size_out):
    image = np.random.default_rng(0).random((12, 12), np.float32)
    matrix = build_resampling(np.zeros(1), np.array([12.0]), 12, size_out, "bicubic")
    expected = Image.fromarray(image).resize((size_out, size_out), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(apply((matrix, matrix), image[None])[0], expected, atol=1e-5)
