"""Points from depth images, and crop boxes."""

import math

import pytest
import torch

from difftori_gym.wrappers import geometry
from difftori_gym.wrappers.cameras import CameraPose
from difftori_gym.wrappers.geometry import CropBox, unproject


def project(points, fovy, rotation, position, height, width):
    """Column, row and depth of points of the world, written down from the definition of a pinhole camera."""
    own = (points - position) @ rotation
    focal = height / 2 / math.tan(math.radians(fovy) / 2)
    depth = -own[..., 2]
    columns = focal * own[..., 0] / depth + width / 2 - 0.5
    rows = -focal * own[..., 1] / depth + height / 2 - 0.5
    return torch.stack((columns, rows, depth), dim=-1)


def turned(generator):
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return q * torch.sign(torch.det(q))


def test_projection_undoes_it_for_a_batch_of_cameras():
    generator = torch.Generator().manual_seed(0)
    rotation = torch.stack([turned(generator) for _ in range(2)])
    position = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    fovy = torch.tensor([45.0, 70.0], dtype=torch.float64)
    depth = 0.5 + torch.rand(2, 5, 8, generator=generator, dtype=torch.float64)
    points = unproject(depth, fovy, rotation, position)
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(8.0), indexing="ij")
    for index in range(2):
        seen = project(points[index], float(fovy[index]), rotation[index], position[index], 5, 8)
        expected = torch.stack((columns.double(), rows.double(), depth[index]), dim=-1)
        torch.testing.assert_close(seen, expected)
        pose = CameraPose(rotation[index].numpy(), position[index].numpy(), float(fovy[index]))
        torch.testing.assert_close(geometry.project(points[index], pose, 5, 8), expected[..., :2])
        behind = 2.0 * position[index] - points[index]
        assert geometry.project(behind, pose, 5, 8).isnan().all()
        alone = unproject(*(value[index : index + 1] for value in (depth, fovy, rotation, position)))
        torch.testing.assert_close(alone[0], points[index])


def test_the_middle_of_the_image_lies_straight_ahead():
    points = unproject(
        torch.full((1, 3, 3), 2.0), torch.tensor([60.0]), torch.eye(3)[None], torch.tensor([[1.0, 0, 0]])
    )
    torch.testing.assert_close(points[0, 1, 1], torch.tensor([1.0, 0.0, -2.0]))
    assert points[0, 1, 2, 0] > 1.0  # right in the image
    assert points[0, 0, 1, 1] > 0.0  # up in the image


def test_a_box_holds_what_is_inside_and_nothing_that_is_not_finite():
    box = CropBox((-1.0, -1.0, 0.0), (1.0, 1.0, 2.0))
    points = torch.tensor([[0.0, 0, 1], [1, 1, 2], [1.01, 0, 1], [0, 0, -0.01], [math.nan, 0, 1], [math.inf, 0, 1]])
    assert box.contains(points).tolist() == [True, True, False, False, False, False]
    assert not CropBox().contains(torch.tensor([math.inf, 0.0, 0.0]))


def test_a_box_may_be_turned():
    box = CropBox((1.0, -0.1, 0.0), (2.0, 0.1, 1.0), yaw=90.0)  # along the world's y axis
    points = torch.tensor([[0.0, 1.5, 0.5], [1.5, 0.0, 0.5], [0.05, 1.1, 0.5], [0.2, 1.5, 0.5]])
    assert box.contains(points).tolist() == [True, False, True, False]
    torch.testing.assert_close(box.middle(), torch.tensor([0.0, 1.5, 0.5]))
    low, high = box.bounds()
    torch.testing.assert_close(low, torch.tensor([-0.1, 1.0, 0.0]), atol=2e-4, rtol=0)
    torch.testing.assert_close(high, torch.tensor([0.1, 2.0, 1.0]), atol=2e-4, rtol=0)


def test_the_bounds_of_a_turned_box_hold_everything_in_it():
    box = CropBox((-0.3, -0.1, 0.0), (0.9, 0.4, math.inf), yaw=37.0)
    points = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0)) * 4 - 2
    inside = points[box.contains(points)]
    low, high = box.bounds()
    assert len(inside) > 50
    assert ((inside >= low) & (inside <= high)).all()


def test_infinite_boxes_have_a_middle_inside():
    assert CropBox().middle().tolist() == [0.0, 0.0, 0.0]
    box = CropBox((1.0, -math.inf, -math.inf), (math.inf, math.inf, -2.0))
    assert box.middle().tolist() == [1.0, 0.0, -2.0]
    assert box.contains(box.middle())


def test_an_empty_box_is_refused():
    with pytest.raises(ValueError, match="crop_low < crop_high"):
        CropBox((0.0, 0.0, 1.0), (1.0, 1.0, 1.0))
