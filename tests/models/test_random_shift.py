"""Random shifts: each result is a crop of the padded image, all shifts are equally likely."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from difftori_gym.models import default_shift, random_shift
from difftori_gym.models.random_shift import picked


@given(
    batch=st.integers(1, 5),
    channels=st.integers(1, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    pad=st.integers(0, 5),
    dtype=st.sampled_from([torch.uint8, torch.float32]),
    seed=st.integers(0, 100),
)
def test_is_a_crop_of_the_padded_image_at_the_drawn_shift(batch, channels, height, width, pad, dtype, seed):
    images = torch.randint(0, 256, (batch, channels, height, width)).to(dtype)
    moved = random_shift(images, pad, torch.Generator().manual_seed(seed))
    assert moved.shape == images.shape
    assert moved.dtype == dtype
    shifts = torch.zeros(2, batch, dtype=torch.int64)
    if pad:
        shifts = torch.randint(0, 2 * pad + 1, (2, batch, 1), generator=torch.Generator().manual_seed(seed))[..., 0]
    for i, (dy, dx) in enumerate(shifts.t().tolist()):
        expected = np.pad(images[i].numpy(), ((0, 0), (pad, pad), (pad, pad)), mode="edge")
        np.testing.assert_array_equal(moved[i].numpy(), expected[:, dy : dy + height, dx : dx + width])


def test_every_shift_is_equally_likely_along_both_axes():
    images = torch.zeros(20_000, 1, 11, 11)
    images[:, :, 5, 5] = 1.0
    moved = random_shift(images, 2, torch.Generator().manual_seed(0))
    counts = moved.sum(0)[0, 3:8, 3:8]
    assert counts.sum() == 20_000
    expected = 20_000 / 25
    assert ((counts - expected) ** 2 / expected).sum() < 60  # chi-square with 24 degrees: below 1 in 10,000


def test_any_layout_and_the_global_generator():
    images = torch.randint(0, 256, (4, 3, 12, 12), dtype=torch.uint8)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(5)
        results.append(random_shift(images.contiguous(memory_format=layout), 3))
    torch.testing.assert_close(*results)
    windows = F.pad(images.float(), (3, 3, 3, 3), mode="replicate").unfold(2, 12, 1).unfold(3, 12, 1)
    for image, choices in zip(results[0].float(), windows, strict=True):
        assert (choices.permute(1, 2, 0, 3, 4) == image).flatten(2).all(-1).any()


def test_the_gradient_flows_to_the_pixels_that_were_read():
    images = torch.rand(2, 1, 6, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(random_shift(images, 1, torch.Generator().manual_seed(1)).sum(), images)
    assert gradient.sum() == 2 * 36


def test_negative_shifts_are_refused():
    with pytest.raises(ValueError, match=r"pad >= 0, got -1"):
        random_shift(torch.zeros(1, 1, 4, 4), -1)


def test_the_size_of_the_shift_follows_the_image():
    assert [default_shift(width) for width in (84, 64, 36, 20)] == [4, 3, 1, 0]


def test_picking_rows_and_columns_is_the_same_shift():
    images = torch.randint(0, 256, (5, 3, 9, 7), dtype=torch.uint8)
    for pad in (1, 3):
        shifts = torch.randint(0, 2 * pad + 1, (2, 5), generator=torch.Generator().manual_seed(pad))
        moved = random_shift(images, pad, torch.Generator().manual_seed(pad))
        assert torch.equal(picked(images, shifts - pad), moved)
