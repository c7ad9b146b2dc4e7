import pytest
import torch
import torch.nn.functional as F
import zoo
from torch import nn

from gradleak.gradients import plain


@pytest.mark.parametrize("loss", [
    nn.CrossEntropyLoss(reduction="none"),
    lambda output, y: F.cross_entropy(output, y).item(),
    lambda output, y: (F.cross_entropy(output, y), output),
])  # fmt: skip
def test_a_loss_is_one_number(loss):
    with pytest.raises(ValueError, match=r"a loss gives one number.*mean"):
        plain.entries(zoo.mlp(), torch.rand(1, 2, 8), torch.zeros(1, 2).long(), loss, False)


@pytest.mark.parametrize("run", [
    lambda m, x: m.last(x).detach(),
    lambda m, x: m.last(x[:, :3]),
    lambda m, x: m.missing(x),
    lambda m, x: torch.utils.checkpoint.checkpoint(m.last, x, use_reentrant=True),
])  # fmt: skip
def test_what_autograd_cannot_do_is_one_error_with_its_cause(run):
    x, y = torch.rand(1, 2, 8), torch.zeros(1, 2).long()
    with pytest.raises(ValueError, match=r"What has to run: torch.autograd.grad") as caught:
        plain.entries(zoo.only(run), x, y, F.cross_entropy, False)
    assert caught.value.__cause__ is not None


def test_memory_that_runs_out_stays_what_it_is():
    def out(m, x):
        raise torch.OutOfMemoryError("no memory")

    x, y = torch.rand(1, 2, 8), torch.zeros(1, 2).long()
    with pytest.raises(torch.OutOfMemoryError):
        plain.entries(zoo.only(out), x, y, F.cross_entropy, False)


def test_what_a_forward_keeps_is_gone_after():
    def keeping(m, x):
        m.calls, m.feature = m.calls + 1, torch.tanh(x)
        return m.last(m.feature)

    model = zoo.only(keeping)
    model.calls = 0
    plain.entries(model, torch.rand(3, 1, 8), torch.zeros(3, 1).long(), F.cross_entropy, True)
    assert model.calls == 0
    assert "feature" not in vars(model)
