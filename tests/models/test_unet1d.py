import pytest
import torch

from difftori_gym.models import ConditionalUnet1D
from difftori_gym.models.unet1d import StepEmbedding


@pytest.mark.parametrize("channels", [(8,), (8, 16), (8, 16, 24)])
def test_shapes_and_dependence(channels):
    torch.manual_seed(0)
    unet = ConditionalUnet1D(3, 5, channels, step_dim=8)
    assert unet.time_multiple == 2 ** (len(channels) - 1)
    actions, steps, condition = torch.randn(2, 8, 3), torch.tensor([0, 40]), torch.randn(2, 5)
    output = unet(actions, steps, condition)
    assert output.shape == actions.shape
    assert not torch.allclose(output[0], unet(actions, steps + 1, condition)[0])
    assert not torch.allclose(output[0], unet(actions, steps, condition + 1)[0])
    # Samples do not mix.
    torch.testing.assert_close(output[1:], unet(actions[1:], steps[1:], condition[1:]), rtol=1e-4, atol=1e-5)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in unet.parameters())


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="multiples of num_groups=8"):
        ConditionalUnet1D(3, 5, (12,))
    with pytest.raises(ValueError, match="even dim"):
        StepEmbedding(5)
