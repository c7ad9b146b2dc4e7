import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from gradleak.gradients.normalisation import WrittenOut


@given(st.booleans(), st.booleans(), st.integers(1, 3), st.sampled_from([1e-5, 0.1]))
def test_equals_pytorchs(weighted, shifted, axes, eps):
    x = torch.randn(3, 2, 5, 4, dtype=torch.double)
    at = x.shape[-axes:]
    weight, bias = torch.randn(at).double(), torch.randn(at).double()
    layer = (at, weight if weighted else None, bias if shifted else None, eps)
    channel = [torch.randn(2).double() if there else None for there in (weighted, shifted)]
    calls = [
        lambda: F.layer_norm(x, *layer),
        lambda: torch.layer_norm(x, *layer),
        lambda: F.instance_norm(x, None, None, *channel, eps=eps),
        lambda: F.batch_norm(x, None, None, *channel, training=True, eps=eps),
    ]
    for call in calls:
        with WrittenOut():
            found = call()
        torch.testing.assert_close(found, call())


@pytest.mark.parametrize("norm", [F.instance_norm, F.batch_norm])
def test_running_statistics_are_pytorchs_own(norm):
    x, statistics = torch.randn(3, 2, 5), [torch.zeros(2), torch.ones(2)]
    with WrittenOut():
        found = norm(x, *statistics)
    assert torch.equal(found, norm(x, torch.zeros(2), torch.ones(2)))
