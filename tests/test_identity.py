"""A result's name changes with whatever decides it, and with nothing else."""

import dataclasses
import enum
import functools
import math
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradleak as gl
from gradleak.identity import describe, digest, made

SHAPE = (1, 8, 8)
DIGITS = gl.data.load("digits").take([0, 1])
FACTOR = 0.5


def halved(gradient):
    """A defense that a user might write."""
    return gl.Normal(_scaled(gradient, FACTOR), 0.1)


def _scaled(gradient, factor):
    return gradient.map(lambda v: v * factor)


def doubled_loss(output, y):
    return 2 * F.cross_entropy(output, y)


@dataclasses.dataclass
class Clipped:
    """A defense of one's own, with a base, a constant and settings."""

    scale: float = 0.1
    table: dict = dataclasses.field(default_factory=lambda: {"a": 1, "b": 2})
    LIMIT = 1.0

    def __call__(self, gradient):
        return gl.Normal(gradient.map(self.clip), self.scale)

    @staticmethod
    def clip(v):
        return v.clamp(-Clipped.LIMIT, Clipped.LIMIT)


class Own(nn.Module):
    """A network of one's own."""

    def __init__(self, power=2):
        super().__init__()
        self.first, self.act, self.last = nn.Linear(64, 8), nn.Sigmoid(), nn.Linear(8, 10)
        self.power = power
        self.register_buffer("shift", torch.zeros(1), persistent=False)

    def forward(self, x):
        return self.last(self.act(self.first(x.flatten(1)) + self.shift) ** self.power)


def trial(**changes):
    """A trial with some of its parts changed."""
    net = changes.pop("net", None) or gl.models.mlp(SHAPE, 10, (6,))
    parts = {k: changes.pop(k) for k in ("loss", "defense", "batch_size", "transform")
             if k in changes}  # fmt: skip
    client = gl.Client(net, **{"defense": gl.GaussianNoise(0.1), **parts})
    attack = changes.pop("attack", {})
    prior = attack.pop("prior", gl.TotalVariation(0.1))
    attack = gl.bayes(client, prior, **{"optimizer": gl.Adam(steps=4), **attack})
    return gl.Trial(client, attack, **{"images": DIGITS, "labels": {}, **changes})


def edited(net, edit):
    """A network after a change in place."""
    with torch.no_grad():
        edit(net)
    return net


def mlp(edit=lambda net: None):
    return edited(gl.models.mlp(SHAPE, 10, (6,)), edit)


def nudged(net):
    net.dense1.weight[0, 0] += 1e-6


def loaded(net):
    net.load_state_dict(gl.models.mlp(SHAPE, 10, (6,), seed=3).state_dict())


def images(**changes):
    return dataclasses.replace(DIGITS, **changes)


def pixel():
    x = DIGITS.x.clone()
    x[0, 0, 3, 3] += 2**-20
    return images(x=x)


OTHERS = {
    "network": lambda: trial(net=gl.models.mlp(SHAPE, 10, (7,))),
    "network seed": lambda: trial(net=gl.models.mlp(SHAPE, 10, (6,), seed=1)),
    "one weight": lambda: trial(net=mlp(nudged)),
    "weights loaded": lambda: trial(net=mlp(loaded)),
    "weights through .data": lambda: trial(net=mlp(lambda n: n.dense2.bias.data.add_(1e-6))),
    "a copy's weights": lambda: trial(net=edited(gl.models.mlp(SHAPE, 10, (6,)), nudged)),
    "buffer": lambda: trial(net=mlp(lambda n: n.normalize.mean.add_(1e-3))),
    "activation": lambda: trial(net=mlp(lambda n: setattr(n, "relu1", nn.Tanh()))),
    "frozen layer": lambda: trial(net=mlp(lambda n: n.dense1.requires_grad_(False))),
    "precision": lambda: trial(net=mlp().double()),
    "forward replaced": lambda: trial(net=mlp(lambda n: setattr(n, "forward", F.relu))),
    "hook": lambda: trial(net=mlp(lambda n: n.dense1.register_forward_hook(_hook))),
    "loss": lambda: trial(loss=doubled_loss),
    "defense parameter": lambda: trial(defense=gl.GaussianNoise(0.2)),
    "defense class": lambda: trial(defense=gl.LaplaceNoise(0.1)),
    "defense of one's own": lambda: trial(defense=halved),
    "defense class of one's own": lambda: trial(defense=Clipped()),
    "its parameter": lambda: trial(defense=Clipped(0.2)),
    "its table": lambda: trial(defense=Clipped(table={"a": 1, "b": 3})),
    "batch size": lambda: trial(batch_size=2),
    "transform": lambda: trial(transform=gl.ATS("1")),
    "image": pixel,
    "label": lambda: images(y=DIGITS.y.flip(0)),
    "index, which noise comes from": lambda: images(index=(5, 1)),
    "seed": lambda: trial(seed=1),
    "prior's weight": lambda: trial(attack={"prior": gl.TotalVariation(0.2)}),
    "prior's power": lambda: trial(attack={"prior": gl.TotalVariation(0.1, 2)}),
    "priors": lambda: trial(attack={"prior": gl.Sum((gl.TotalVariation(0.1), gl.Box()))}),
    "steps": lambda: trial(attack={"optimizer": gl.Adam(steps=5)}),
    "sign": lambda: trial(attack={"optimizer": gl.Adam(steps=4, signed=True)}),
    "temperature": lambda: trial(attack={"temperature": 2.0}),
    "ball": lambda: trial(attack={"ball": gl.Ball(1.0)}),
    "restarts": lambda: trial(attack={"restarts": 2}),
}  # fmt: skip


def _hook(layer, inputs, output):
    return 2 * output


def name(what):
    what = what if isinstance(what, gl.Trial) else trial(images=what)
    return what.row_id(what.images.index[0])


def test_whatever_decides_changes_the_name():
    names = {what: name(make()) for what, make in OTHERS.items()} | {"": name(trial())}
    names.pop("a copy's weights")  # equal to one weight
    assert len(set(names.values())) == len(names), names
    assert name(OTHERS["a copy's weights"]()) == name(OTHERS["one weight"]()) != names[""]


def test_what_decides_nothing_does_not():
    import copy

    plain, net = trial(), mlp()
    same = [
        trial(labels={"defense": "other", "step": 3}),
        trial(keep=[0]),
        trial(images=images(name="mine", split="train")),
        trial(images=images(x=DIGITS.x.clone())),
        trial(loss=F.cross_entropy, batch_size=None),
        trial(net=mlp().eval()),
        trial(net=copy.deepcopy(mlp())),
        trial(net=mlp(nudged and (lambda n: n.dense1.weight.add_(0)))),
        trial(attack={"temperature": 1.0, "optimizer": gl.Adam(4, lr=0.1, patience=None)}),
        dataclasses.replace(plain, client=dataclasses.replace(plain.client)),
    ]
    with torch.no_grad():  # there and back
        net.dense1.weight.mul_(2).div_(2)
    assert {name(t) for t in [*same, trial(net=net)]} == {name(plain)}
    a, b = ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert digest(Clipped(table=a)) == digest(Clipped(table=b))


def test_images_are_named_one_by_one():
    both, second = trial(), trial(images=DIGITS.take([1]))
    assert both.row_id(1) == second.row_id(1) != both.row_id(0)


NETWORKS = {
    "power": lambda n: setattr(n, "power", 3),
    "buffer that is not saved": lambda n: n.shift.add_(1),
    "activation": lambda n: setattr(n, "act", nn.ReLU()),
    "frozen": lambda n: n.first.bias.requires_grad_(False),
    "tied": lambda n: setattr(n.last, "bias", n.first.bias),
    "extra layer": lambda n: setattr(n, "more", nn.Identity()),
}


def test_a_network_of_ones_own_is_named_after_all_that_it_is():
    def network(edit=lambda n: None):
        torch.manual_seed(0)
        return edited(Own(), edit)

    for note in (lambda n: n, lambda n: made(n, "own", 1)):
        names = {what: digest(edited(note(network()), edit)) for what, edit in NETWORKS.items()}
        assert len({*names.values(), digest(note(network()))}) == len(NETWORKS) + 1, names
    other = edited(network(), lambda n: n.first.bias.add_(1))
    assert digest(made(network(), "a")) == digest(made(other, "a")) != digest(made(other, "b"))
    assert digest(network().eval()) == digest(network())
    dropping = nn.Sequential(nn.Linear(3, 3), nn.Dropout())
    assert digest(dropping) != digest(dropping.eval())


SOURCE = '''
"""A module of a user."""
import math
import torch
import gradleak as gl
from dataclasses import dataclass
FACTOR = 0.5
TABLE = torch.ones(3)

def scaled(v, factor=FACTOR):
    kept = v * factor
    return kept

class Base:
    power = 1

    def change(self, v):
        return scaled(v) ** self.power

@dataclass(frozen=True)
class Mine(Base):
    scale: float = 0.1

    def __call__(self, gradient):
        rest = gradient.map(self.change)
        parts = [math.pi * f for f in (1, 2) if f > FACTOR]
        return gl.Normal(rest, self.scale * parts[0] * float(TABLE.sum()))

    @property
    def strength(self):
        return self.scale

@torch.no_grad()
def plain(gradient):
    try:
        v = gradient.map(lambda v: scaled(v, factor=2 * FACTOR))
        w = [v for _ in range(1)]
    except ValueError:
        raise
    return gl.Normal(w[0], FACTOR)
'''
CHANGING = [
    ("FACTOR = 0.5", "FACTOR = 0.25"),
    ("torch.ones(3)", "torch.ones(4)"),
    ("v * factor", "v / factor"),
    ("power = 1", "power = 2"),
    ("** self.power", "* self.power"),
    ("scale: float = 0.1", "scale: float = 0.2"),
    ("(1, 2)", "(1, 3)"),
    ("f > FACTOR", "f < FACTOR"),
    ("math.pi", "math.e"),
    ("return self.scale", "return -self.scale"),
]
CHANGING_PLAIN = [
    *CHANGING[:1], CHANGING[2], ("2 * FACTOR", "3 * FACTOR"), ("gl.Normal(w", "gl.Laplace(w"),
    ("except ValueError", "except KeyError"), ("range(1)", "range(2)"),
]  # fmt: skip
HARMLESS = [
    ("    kept = v", "    # a comment\n\n    kept = v"),
    ("kept", "left_over"),
    ("rest", "others"),
    ('    return kept', '    return (\n        kept\n    )'),
    ("def change(self, v):", 'def change(self, v):\n        """Say what it does."""'),
    ("def plain(gradient):", 'def plain(gradient):\n    "Halve it."'),
    ("import math\n", "import math\nimport os\nUNUSED = lambda: 3\n"),
    ("[v for _ in", "[v for each in"),
]  # fmt: skip


def executed(source, name="users", file=None):
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(source, file or f"{name}.py", "exec"), vars(module))
    return module


def of_source(source, file=None):
    module = executed(source, file=file)
    return digest(module.Mine()), digest(module.plain)


@pytest.mark.parametrize(("old", "new"), CHANGING)
def test_an_edit_of_a_class_that_changes_values_changes_the_name(old, new):
    assert old in SOURCE
    assert of_source(SOURCE.replace(old, new))[0] != of_source(SOURCE)[0]


@pytest.mark.parametrize(("old", "new"), CHANGING_PLAIN)
def test_an_edit_of_a_function_that_changes_values_changes_the_name(old, new):
    assert old in SOURCE
    assert of_source(SOURCE.replace(old, new))[1] != of_source(SOURCE)[1]


@pytest.mark.parametrize(("old", "new"), HARMLESS)
def test_an_edit_that_changes_nothing_renames_nothing(old, new):
    assert old in SOURCE
    assert of_source(SOURCE.replace(old, new)) == of_source(SOURCE)


def test_code_without_a_file_is_read_too():
    """Such as that of `python -c`; the methods that `dataclass` writes have none either."""
    sources = (SOURCE, SOURCE.replace("math.pi", "math.e"), SOURCE.replace("rest", "others"))
    one, other, same = (of_source(source, "<string>")[0] for source in sources)
    assert one == same == of_source(SOURCE)[0] != other


def test_code_without_a_module_of_its_own_is_read_too():
    """`exec` into a bare dictionary says that its classes are Python's own."""
    spaces = [{}, {}]
    for space, source in zip(spaces, (SOURCE, SOURCE.replace("math.pi", "math.e")), strict=True):
        source = source.replace("@dataclass(frozen=True)\n", "")
        exec(source, space)
    assert digest(spaces[0]["Mine"]) != digest(spaces[1]["Mine"])


def test_helpers_in_another_module_are_read(tmp_path, monkeypatch):
    users = "import helpers\ndef mine(g):\n    return helpers.near(g)\n"
    inside = "def mine(g):\n    from helpers import near\n    return near(g)\n"
    for source in (users, inside):
        found = set()
        for factor in (1, 2):
            executed(f"def near(g):\n    return g.map(lambda v: v * {factor})\n", "helpers")
            found.add(digest(executed(source).mine))
        assert len(found) == 2
    whole = "def mine(g):\n    import helpers\n    h = helpers\n    return h.near(g)\n"
    with pytest.raises(ValueError, match=r"module helpers, .*import by name what is used of it"):
        digest(executed(whole).mine)


def test_functions_that_call_each_other_are_described():
    source = "def f(n):\n    return n and g(n - 1)\ndef g(n):\n    return n and f(n - 2)\n"
    module, other = executed(source), executed(source.replace("n - 2", "n - 3"))
    assert digest(module.f) == digest(executed(source).f) != digest(other.f)


def own(name="Toy", module="gradleak.defenses.noise", **said):
    """A dataclass as if it were the package's."""
    fields = [(k, float, v) for k, v in said.pop("fields", {"scale": dataclasses.MISSING}).items()]
    fields = [f if f[2] is not dataclasses.MISSING else f[:2] for f in fields]
    made = dataclasses.make_dataclass(name, fields, frozen=True, namespace=said)
    made.__module__ = module  # from Python 3.12 on it would be the caller's
    return made


def test_the_packages_classes_enter_by_name_revision_and_what_is_not_at_its_default():
    before = own()(1.0)
    longer = own(fields={"scale": dataclasses.MISSING, "new": 0.0})
    same = [own(module="gradleak.elsewhere")(1.0), longer(1.0), own(revision=0)(1.0)]
    same += [own(__call__=lambda self, g: g)(1.0)]
    assert {digest(v) for v in same} == {digest(before)}
    others = [own()(2.0), longer(1.0, 1.0), own(revision=1)(1.0), own("Other")(1.0)]
    others += [own(module="mine", __call__=halved)(1.0)]
    assert len({digest(v) for v in [*others, before]}) == 6


VALUES = [
    None, True, 1, 1.0, "1", b"1", 1j, -1, 0.0, -0.0, math.inf, -math.inf, math.nan, "", (), [],
    {}, set(), (1,), [1], {1}, ((1,), 2), (1, (2,)), ("a", "b"), ("ab",), {"a": 1}, {"a": 1.0},
    {1: "a"}, np.float32(1), np.int64(1), np.arange(3), np.arange(3.0), torch.arange(3),
    torch.arange(3).float(), torch.arange(3).view(3, 1), torch.tensor(1), torch.tensor([1]),
    torch.float32, torch.float64, slice(1), slice(1, None, 2), range(3), ..., math.sin, math.cos,
    torch.relu, torch.tanh, F.relu, np.sin, len, int, nn.ReLU, nn.Tanh, gl.GaussianNoise,
    functools.partial(math.pow, 2), functools.partial(math.pow, 3), enum.Enum("E", "A B").A,
    torch.Tensor.relu, torch.tensor([0.0]), torch.tensor([-0.0]), torch.zeros(2).bfloat16(),
    nn.init.zeros_, gl.ATS("1").draw, gl.ATS("2").draw,
]  # fmt: skip


def test_values_are_told_apart_and_described_in_plain_words():
    names = [digest(value) for value in VALUES]
    assert len(set(names)) == len(VALUES)

    def plain(part):
        return isinstance(part, str) or (isinstance(part, list) and all(map(plain, part)))

    assert all(plain(describe(value)) for value in VALUES)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
NESTED = st.recursive(
    LEAVES, lambda part: st.lists(part) | st.dictionaries(st.text(), part) | st.tuples(part, part)
)


@settings(max_examples=100)
@given(NESTED, NESTED)
def test_equal_names_are_equal_values(a, b):
    same = repr(a) == repr(b) or (
        isinstance(a, dict | list | tuple) and _canonical(a) == _canonical(b)
    )
    assert (digest(a) == digest(b)) == same


def _canonical(value):
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{k!r}:{_canonical(v)}" for k, v in value.items())) + "}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({','.join(map(_canonical, value))})"
    return repr(value)


def test_names_are_the_same_in_another_process(tmp_path, monkeypatch):
    """Neither addresses nor the order of sets enter."""
    (tmp_path / "users_file.py").write_text(SOURCE)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import users_file as u\n"
        "from gradleak.identity import digest; print(digest(u.Mine(), u.plain, {'a', 'b', 'c'}))"
    )
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    run = [sys.executable, "-c", code]
    found = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    module = executed(SOURCE)
    assert found == digest(module.Mine(), module.plain, {"a", "b", "c"})


def closure():
    value = 3

    def inner(output, y):
        return value * F.cross_entropy(output, y)

    return inner


class Plain:
    def __call__(self, gradient):
        return gradient


class Smooth(gl.attacks.Smoothing):
    samples = 1


REFUSED = {
    "lambda": (lambda o, y: o.sum(), "the client's loss is a lambda"),
    "closure": (closure(), "the client's loss is a closure"),
    "object": (Plain(), "the client's loss is an object of Plain"),
    "its method": (Plain().__call__, "the client's loss is an object of Plain"),
    "generator": (functools.partial(_hook, (i for i in range(3))), "is an object of generator"),
    "partial": (functools.partial(lambda k, o, y: o, 1), "the client's loss is a lambda"),
    "random": (functools.partial(_hook, torch.Generator()), "is an object of Generator"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_stable_description_is_refused_with_the_cure(what):
    loss, told = REFUSED[what]
    with pytest.raises(ValueError, match=f"{told}.*make it a frozen dataclass or a module-level"):
        trial(loss=loss)


def test_the_refused_part_is_named(tmp_path):
    with (tmp_path / "a").open("w") as file:
        for value, told in (
            (file, "defense.table['file'] is an object of TextIOWrapper"),
            (tmp_path, r"read the file: what it holds decides"),
            (lambda v: v, "table['file'] is a lambda"),
        ):
            with pytest.raises(ValueError, match=_literal(told)):
                trial(defense=Clipped(table={"file": value}))
    with pytest.raises(ValueError, match=r"the client's defense\.then is a lambda"):
        trial(defense=gl.RandomMask(0.5, then=lambda g: g))
    module = executed("import threading\nLOCK = threading.Lock()\ndef f(o, y):\n    LOCK\n")
    with pytest.raises(ValueError, match="client's loss, in 'LOCK', is an object of lock"):
        trial(loss=module.f)
    with pytest.raises(ValueError, match="the attack's ball is"):
        trial(attack={"ball": Smooth()})
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    net[1].scale = lambda v: v
    with pytest.raises(ValueError, match=r"the client's model\.1\.scale is a lambda"):
        trial(net=net)


class Held(dict):
    """A dictionary whose code nobody reads."""


def test_what_inherits_from_a_plain_kind_is_refused():
    for odd in (Held(a=1), type("T", (torch.Tensor,), {})(), type("S", (str,), {})("a")):
        with pytest.raises(ValueError, match="no stable description"):
            digest(odd)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore::DeprecationWarning")
def test_a_recipe_is_the_cure_for_a_network_that_cannot_be_described():
    def network(factor):
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        net.scale = lambda v: factor * v
        nn.init.constant_(net[1].weight, factor)
        return net

    with pytest.raises(ValueError, match=r"scale is a lambda.*or note how the network was made"):
        digest(network(1))
    a, b = made(network(1), "mine", 1), made(network(2), "mine", 2)
    assert digest(a) == digest(made(network(1), "mine", 1)) != digest(b)
    with torch.no_grad():
        a[1].weight[0, 0] += 1e-6
    with pytest.raises(ValueError, match="scale is a lambda"):
        digest(a)
    compiled = torch.jit.trace(nn.Linear(3, 3), torch.rand(1, 3))
    with pytest.raises(ValueError, match="or note how the network was made"):
        digest(compiled)


def _literal(text):
    import re

    return re.escape(text) if "[" in text else text


def test_names_are_those_of_committed_rows():
    """Another way to describe the same things would leave every committed row behind."""
    digits = gl.data.load("digits").take([0, 1])
    model = gl.models.cnn(digits.shape, 10)
    masked = gl.Client(model, gl.RandomMask(0.5, then=gl.GaussianNoise(0.1)))
    bare, prior = gl.Client(model), gl.Sum((gl.TotalVariation(1.0), gl.Box()))
    attacks = [
        (masked, gl.bayes(masked, prior, restarts=2)),
        (bare, gl.inverting_gradients(bare)),
        (bare, gl.attacks.FirstLayer()),
    ]
    names = [gl.Trial(client, attack, digits, {}).row_id(0) for client, attack in attacks]
    assert names == ["8840a3bf9ad279f9", "3bf51f671138e281", "7bc88aab7cd72932"]


@pytest.mark.parametrize(
    ("source", "old", "new"),
    [
        ("import torch.nn.functional as F\ndef f(x): return F.softplus(x)", "torch.nn.functional",
         "torch.special"),
        ("op = max\ndef f(x): return op(x, 1)", "max", "min"),
        ("import math as m\ndef f(x): return m.sin(x)", "import math", "import cmath"),
        ("import functools, gradleak\n@functools.wraps(gradleak.psnr)\ndef f(x): return x",
         "return x", "return -x"),
    ],
)  # fmt: skip
def test_what_a_name_stands_for_enters_and_not_the_name(source, old, new):
    """Aliases of libraries and builtins, and wrappers that call themselves ours."""
    found = []
    for text in (source, source.replace(old, new)):
        namespace = {"__name__": "a_users_module"}
        exec(text, namespace)
        found.append(digest(namespace["f"]))
    assert len(set(found)) == 2
