import pytest
import torch
import zoo
from torch import nn

import gradleak as gl
from gradleak.gradients import network


class OptimizedLike(nn.Module):
    """What torch.compile returns, without its seconds of import."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model


def in_place_compiled(model):
    model.compile(backend="eager")
    return model


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize(
    ("wrap", "cure"),
    [
        (nn.DataParallel, r"its \.module"),
        (lambda m: nn.Sequential(nn.DataParallel(m), nn.ReLU()), r"'0' \(DataParallel\)"),
        (torch.jit.script, "scripted or traced"),
        (lambda m: torch.jit.trace(m, torch.rand(1, 8)), "scripted or traced"),
        (OptimizedLike, r"\._orig_mod"),
        (in_place_compiled, r"\.compile\(\) was not called"),
    ],
)
def test_wrappers_are_named_with_the_cure(wrap, cure):
    with pytest.raises(ValueError, match=cure):
        gl.Client(wrap(zoo.mlp()))


def test_a_network_without_sizes_or_with_complex_weights():
    with pytest.raises(ValueError, match=r"run the model once"):
        gl.Client(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(ValueError, match="two real parameters"):
        gl.Client(nn.Linear(3, 2, dtype=torch.cfloat))


@pytest.mark.parametrize("layer", [nn.Dropout(), nn.AlphaDropout(), nn.BatchNorm1d(8)])
def test_train_mode_is_found_when_it_is_used(layer):
    x, y = torch.rand(2, 8), torch.tensor([0, 1])
    client = gl.Client(nn.Sequential(layer, nn.Linear(8, 3)).eval())
    client.release(x, y)
    client.model.train()
    with pytest.raises(ValueError, match=r"'0' .* train mode.*call model.eval\(\) first"):
        client.gradient(x, y)


def test_each_tensor_stands_in_all_of_its_places_and_the_models_own_come_back():
    for make in (zoo.shared, zoo.tied):
        model, x = make(), torch.rand(2, 8)
        own = dict(model.named_parameters())
        halves = {k: p.detach() / 2 for k, p in own.items()}
        found = network.call(model, halves, x)
        assert all(p is own[k] for k, p in model.named_parameters())
        with torch.no_grad():
            for p in model.parameters():
                p.div_(2)
        torch.testing.assert_close(found, model(x))


def test_tokens_are_refused_with_both_cures():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(ValueError, match=r"attack their embeddings.*gradleak.attacks.tokens"):
        gl.Client(model).release(torch.randint(9, (2, 3)), torch.tensor([0, 1]))
