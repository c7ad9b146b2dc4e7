"""Networks of all kinds, small: name -> (what makes one, the shape of its x). Three classes."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint
from torchvision.models import VisionTransformer

IMAGE, TABLE, SERIES = (2, 6, 6), (8,), (5, 8)


class Of(nn.Module):
    """A network that is its forward, a function of the module and x, and some layers."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.run(self, x)


class Square(torch.autograd.Function):
    """A function without a rule for vmap."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, slope):
        return 2 * slope * ctx.saved_tensors[0]


class Counting(nn.Module):
    """Writes into buffers as it runs: one that nothing reads, and means that it subtracts."""

    def __init__(self, means):
        super().__init__()
        self.last, self.means = nn.Linear(8, 3), means
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x):
        self.calls += 1
        if self.means == "in place":
            self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
        elif self.means == "anew":
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.last(torch.tanh(x) - self.mean)


class Unused(nn.Module):
    """Has parameters that do not enter the output."""

    def __init__(self):
        super().__init__()
        self.last, self.other = nn.Linear(8, 3), nn.Linear(4, 4)
        self.bare = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.last(torch.tanh(x))


def mlp(wrap=lambda layer: layer):
    return nn.Sequential(wrap(nn.Linear(8, 12)), nn.Tanh(), nn.Linear(12, 3))


def pruned():
    model = mlp()
    prune.l1_unstructured(model[0], "weight", 0.3)
    prune.random_unstructured(model[2], "bias", 0.3)
    with torch.no_grad():
        model(torch.zeros(1, 8))  # else a copy of it is refused: its weight holds a graph
    return model


def shared():
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(8, 3))


def tied():
    both = {"there": nn.Linear(8, 6, bias=False), "back": nn.Linear(6, 8, bias=False)}
    both["other"] = nn.Linear(8, 6, bias=False)
    both["other"].weight = both["there"].weight
    return Of(
        lambda m, x: m.last(torch.tanh(m.other(m.back(torch.tanh(m.there(x)))))),
        **both,
        last=nn.Linear(6, 3),
    )


def conv(*layers, size=64, first=None):
    first = nn.Conv2d(2, 4, 3) if first is None else first
    return nn.Sequential(first, *layers, nn.Tanh(), nn.Flatten(), nn.Linear(size, 3))


def dense(run, size=6, **layers):
    return Of(run, first=nn.Linear(8, size), last=nn.Linear(6, 3), **layers)


def only(run):
    return Of(run, last=nn.Linear(8, 3))


def recurrent(kind, **options):
    cells = kind(8, 6, batch_first=True, **options)
    return Of(lambda m, x: m.last(m.cells(x)[0][:, -1]), cells=cells, last=nn.Linear(6, 3))


def transformer(**options):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(40, 3)).eval()


def attending():
    heads = nn.MultiheadAttention(8, 2, batch_first=True)
    return Of(lambda m, x: m.last(m.heads(x, x, x)[0].mean(1)), heads=heads, last=nn.Linear(8, 3))


def checked(m, x):
    assert x.shape[-1] == 8
    assert (x.detach() > -9).all()
    return m.last(torch.tanh(x))


def assigned(m, x):
    h = torch.zeros(len(x), 6, dtype=x.dtype)
    h[:, :3] = m.first(x)
    return m.last(torch.tanh(h))


def by_numpy(m, x):
    return m.last(torch.tanh(x) * float(np.sin(x.detach().numpy()).mean()))


def positions(sparse):
    return Of(
        lambda m, x: m.last(torch.tanh(x[..., None] * m.table(torch.arange(8))).sum(1)),
        table=nn.Embedding(8, 4, sparse=sparse),
        last=nn.Linear(4, 3),
    )


def saved(m, x):
    return m.last(checkpoint(lambda z: torch.tanh(m.first(z)), x, use_reentrant=False))


def spectrum(m, x):
    return m.last(torch.fft.rfft(torch.tanh(m.first(x)), 10).abs())


def attention(m, x):
    return m.last(F.scaled_dot_product_attention(m.query(x), m.key(x), x).mean(1))


CAPTURED = {
    "linear": (mlp, TABLE),
    "convolution": (conv, IMAGE),
    "batch norm": (lambda: conv(nn.BatchNorm2d(4)).eval(), IMAGE),
    "frozen norm": (lambda: conv(nn.GroupNorm(2, 4).requires_grad_(False)), IMAGE),
    "one layer twice": (shared, TABLE),
    "complex values": (lambda: dense(spectrum), TABLE),
    "attention, linear": (
        lambda: Of(attention, query=nn.Linear(8, 8), key=nn.Linear(8, 8), last=nn.Linear(8, 3)),
        SERIES,
    ),
    "in place, inside": (lambda: dense(lambda m, x: m.last((m.first(x) * 2).add_(1).sin())), TABLE),
}
GENERAL = {
    "pruned": (pruned, TABLE),
    "weight norm": (lambda: mlp(parametrizations.weight_norm), TABLE),
    "spectral norm": (lambda: mlp(parametrizations.spectral_norm).eval(), TABLE),
    "spectral norm that turns": (lambda: mlp(parametrizations.spectral_norm), TABLE),
    "orthogonal": (lambda: mlp(parametrizations.orthogonal), TABLE),
    "tied": (tied, TABLE),
    "keyword": (lambda: dense(lambda m, x: m.last(input=torch.sin(m.first(input=x)))), TABLE),
    "in-place first layer": (lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 3)), TABLE),
    "x.mul_": (lambda: only(lambda m, x: m.last(x.mul_(2).sin())), TABLE),
    "counter": (lambda: Counting("never"), TABLE),
    "means anew": (lambda: Counting("anew"), TABLE),
    "unused": (Unused, TABLE),
    "positions": (lambda: positions(False), TABLE),
    "group norm": (lambda: conv(nn.GroupNorm(2, 4)), IMAGE),
    "instance norm": (lambda: conv(nn.InstanceNorm2d(4, affine=True)), IMAGE),
    "norm of the batch": (
        lambda: conv(nn.BatchNorm2d(4, track_running_stats=False)).eval(),
        IMAGE,
    ),
    "layer norm": (lambda: nn.Sequential(mlp(), nn.LayerNorm(3), nn.Linear(3, 3)), TABLE),
    "depthwise": (lambda: conv(first=nn.Conv2d(2, 4, 3, groups=2)), IMAGE),
    "transposed": (lambda: conv(first=nn.ConvTranspose2d(2, 1, 3)), IMAGE),
    "Conv1d": (lambda: conv(first=nn.Conv1d(5, 4, 3), size=24), SERIES),
    "Conv3d": (lambda: conv(first=nn.Conv3d(1, 4, 3), size=32), (1, 4, 4, 4)),
    "multi-head": (attending, SERIES),
    "transformer": (transformer, SERIES),
    "transformer, norm first": (lambda: transformer(norm_first=True, activation="gelu"), SERIES),
    "vision transformer": (
        lambda: VisionTransformer(8, 4, 1, 2, 8, 16, num_classes=3).eval(),
        (3, 8, 8),
    ),
    "scaled by the batch": (lambda: only(lambda m, x: m.last(torch.sin(x / x.max()))), TABLE),
    "mean of the batch": (lambda: only(lambda m, x: m.last(torch.sin(x - x.mean(0) / 2))), TABLE),
}
LOOP = {
    "if": (lambda: only(lambda m, x: m.last(x.sin() if x.mean() > 0.5 else x.cos())), TABLE),
    "assert": (lambda: only(checked), TABLE),
    "item": (lambda: only(lambda m, x: m.last(torch.sin(x) * x.max().item())), TABLE),
    "NumPy": (lambda: only(by_numpy), TABLE),
    "mask": (lambda: only(lambda m, x: m.last(torch.sin(x)) + x[x > 0.5].sum()), TABLE),
    "GRU": (lambda: recurrent(nn.GRU), SERIES),
    "RNN": (lambda: recurrent(nn.RNN), SERIES),
    "LSTM": (lambda: recurrent(nn.LSTM, bidirectional=False, num_layers=2), SERIES),
    "own function": (lambda: dense(lambda m, x: m.last(Square.apply(m.first(x)))), TABLE),
    "checkpoint": (lambda: dense(saved), TABLE),
    "assigned": (lambda: dense(assigned, size=3), TABLE),
    "means in place": (lambda: Counting("in place"), TABLE),
    "running instance norm": (
        lambda: conv(nn.InstanceNorm2d(4, affine=True, track_running_stats=True)),
        IMAGE,
    ),
    "sparse": (lambda: positions(True), TABLE),
}
