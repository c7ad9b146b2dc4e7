import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import gradleak as gl
from gradleak.experiment import Records, batches, runs
from gradleak.experiment.trials import grid

DIGITS = gl.data.load("digits").take(range(5))
MODEL = gl.models.mlp((1, 8, 8), 10, widths=(16,))


def trials(weights=(0.1, 1.0), images=DIGITS, keep=(0, 3)):
    clients = [gl.Client(MODEL, d) for d in (gl.GaussianNoise(0.1), gl.LaplaceNoise(0.1))]
    return [
        gl.Trial(
            client,
            gl.bayes(client, gl.TotalVariation(w), optimizer=gl.Adam(steps=4), restarts=2),
            images,
            {"defense": type(client.defense).__name__, "weight": w},
            keep=keep,
        )
        for client in clients
        for w in weights
    ]


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "results", "some")


def test_rows_hold_what_was_computed(records):
    table = runs.run(trials(), records, "a command")
    assert len(table) == 20
    row = table[(table.defense == "LaplaceNoise") & (table.weight == 1.0)].iloc[3]
    trial = trials()[3]
    view = trial.client.release(DIGITS.x, DIGITS.y, key=DIGITS.index)
    x_hat = trial.attack.attack(view).x
    assert row.psnr == pytest.approx(gl.psnr(x_hat, DIGITS.x)[3].item(), abs=1e-3)
    assert row.ssim == pytest.approx(gl.ssim(x_hat, DIGITS.x)[3].item(), abs=1e-3)
    assert row.belief == "LaplaceNoise(scale=0.1)"
    assert (row["index"], row.dataset, row.split) == (3, "digits", "test")
    image = records.images([row.id])[0]
    torch.testing.assert_close(image, x_hat[3].clamp(0, 1), rtol=0, atol=0.5 / 255 + 1e-4)
    known = records.facts()
    assert known["command"] == "a command"
    assert known["rows"] == 20


def test_a_reconstruction_that_was_not_kept_is_computed_again(records):
    first = runs.run(trials(keep=()), records)
    assert not records.pictures(first.id)
    again = runs.run(trials(keep=(3,)), records)
    pd.testing.assert_frame_equal(first, again)
    assert len(records.read()) == len(first)
    ids = again.id[again["index"] == 3]
    assert set(records.pictures(again.id)) == set(ids)
    x_hat = records.images(ids)
    psnr = gl.psnr(x_hat, DIGITS.x[[3]].expand_as(x_hat))
    assert psnr.tolist() == pytest.approx(again.psnr[again["index"] == 3].tolist(), abs=0.1)


def test_trials_of_other_seeds_beside_it_change_no_row(records, tmp_path):
    """Neither a start nor the noise is another seed's."""
    trial = trials()[0]
    seeds = [dataclasses.replace(trial, seed=seed, keep=()) for seed in (0, 1)]
    together = runs.run(seeds, records)
    alone = pd.concat(runs.run([t], Records(tmp_path / str(t.seed), "r")) for t in seeds)
    assert together.id.tolist() == alone.id.tolist()
    assert together.psnr.tolist() == pytest.approx(alone.psnr.tolist(), abs=1e-3)
    assert (together.psnr[:5].to_numpy() - together.psnr[5:].to_numpy()).all()


def test_a_finished_run_costs_nothing(records, monkeypatch):
    first = runs.run(trials(), records)
    monkeypatch.setattr(runs, "compute", lambda *_: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(runs.run(trials(), records), first)


def test_an_interruption_loses_at_most_a_batch(records, monkeypatch):
    monkeypatch.setitem(batches.AT_ONCE, "cpu", 4)
    compute, calls = batches.compute, []

    def stop_in_the_third_batch(batch, keep):
        calls.append(batch)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(batch, keep)

    monkeypatch.setattr(runs, "compute", stop_in_the_third_batch)
    with pytest.raises(KeyboardInterrupt):
        runs.run(trials(), records)
    assert len(records.read()) == 4
    monkeypatch.setattr(runs, "compute", compute)
    assert len(runs.run(trials(), records)) == 20


def test_a_batch_holds_no_more_gradients_than_fit():
    enormous = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2**40, device="meta"))
    client = gl.Client(enormous, gl.GaussianNoise(0.1))
    (small, *_) = trials()
    large = dataclasses.replace(
        small, client=client, attack=gl.bayes(client, gl.TotalVariation(1.0))
    )
    cpu = torch.device("cpu")
    assert batches._at_once(large, cpu) == 1
    assert batches._at_once(small, cpu) == batches.AT_ONCE["cpu"] // small.attack.restarts


def test_a_defense_of_ones_own_need_not_be_hashable(tmp_path):
    @dataclasses.dataclass
    class Halved:
        scale: float = 0.1

        def __call__(self, gradient):
            return gl.Normal(gradient.map(lambda v: v / 2), self.scale)

    few = gl.data.load("digits").take([0, 1])
    client = gl.Client(gl.models.cnn(few.shape, 10), Halved())
    attack = gl.bayes(client, gl.Box(), optimizer=gl.Adam(steps=2))
    trial = gl.Trial(client, attack, few, {})
    assert len(gl.experiment.run([trial], Records(tmp_path, "r"))) == 2


def test_more_trials_are_added_to_a_file(records):
    few = runs.run(trials(weights=[0.1], images=DIGITS.take([0, 1])), records)
    more = runs.run(trials(), records)
    assert len(records.read()) == 20
    same = more[more.id.isin(few.id)].set_index("id").loc[few.id]
    assert same.psnr.tolist() == few.psnr.tolist()


def test_settings_are_computed_together_where_they_can_be():
    every = trials()
    found = list(batches.batches(every, {t.row_id(i) for t in every for i in range(5)}))
    assert [len(batch) for batch in found] == [2, 2]


def test_rows_of_one_network_are_not_taken_for_anothers(records, tmp_path):
    """Equal labels, equal reprs; other networks, weights, losses and images of the same index."""
    few = DIGITS.take([0, 1])
    nets = [gl.models.mlp(few.shape, 10, (16,), seed=s) for s in (0, 1)]
    nets.append(gl.models.lenet(few.shape, 10))

    def go(net, where, loss=torch.nn.CrossEntropyLoss(), images=few):
        client = gl.Client(net, loss=loss)
        held = gl.inverting_gradients(client, optimizer=gl.Adam(steps=5, signed=True))
        return runs.run([gl.Trial(client, held, images, {"model": "mine"})], where).psnr.tolist()

    smooth = torch.nn.CrossEntropyLoss(label_smoothing=0.5)
    cells = [(net, {}) for net in nets] + [(nets[0], {"loss": smooth})]
    cells.append((nets[0], {"images": dataclasses.replace(few, x=few.x.flip(3))}))
    found = [go(net, records, **others) for net, others in cells]
    alone = [go(net, Records(tmp_path / str(k), "r"), **c) for k, (net, c) in enumerate(cells)]
    assert found == alone
    assert len(set(map(str, found))) == len(cells)


def test_a_network_that_is_trained_between_two_runs_is_another(records):
    """Also where the trial was made before."""
    net = gl.models.mlp((1, 8, 8), 10, widths=(16,))
    client = gl.Client(net)
    held = gl.bayes(client, gl.Box(), optimizer=gl.Adam(steps=2, signed=True))
    held = dataclasses.replace(held, client=gl.Client(net, gl.Direction()))
    trial = gl.Trial(client, held, DIGITS, {})
    first = runs.run([trial], records)
    with torch.no_grad():
        net.dense1.weight.mul_(2)
    second = runs.run([trial], records)
    assert not set(first.id) & set(second.id)


def test_attacks_of_every_kind_are_trials(records):
    """What is no climb is asked view by view, in rows of the same scores."""
    client = gl.Client(MODEL)
    trial = gl.Trial(client, gl.attacks.FirstLayer(), DIGITS, {"who": "ratio"}, keep=(3,))
    table = runs.run([trial, dataclasses.replace(trial, seed=1)], records)
    assert (table.psnr > 60).all()
    assert table.attack.tolist() == ["FirstLayer(tolerance=0.001)"] * 10
    assert table.log_posterior.isna().all()
    assert list(table["index"]) == 2 * list(DIGITS.index)
    (image,) = records.images(table.id[[3]])
    torch.testing.assert_close(image, DIGITS.x[3], rtol=0, atol=1 / 255)


def test_images_that_an_attack_was_made_from_are_refused():
    @dataclasses.dataclass(frozen=True)
    class Knowing(gl.Attack):
        sources = (DIGITS.source,)

    gl.Trial(gl.Client(MODEL), Knowing(), gl.data.load("digits").take([5, 6]), {})
    with pytest.raises(ValueError, match=r"images \[4\] of digits \(test\) are attacked"):
        gl.Trial(gl.Client(MODEL), Knowing(), gl.data.load("digits").take([4, 5]), {})


def test_every_parameter_tells_rows_apart():
    (trial, *_) = trials()
    changes = (dict(restarts=3), dict(optimizer=gl.Adam(steps=5)), dict(temperature=2.0))
    others = [
        dataclasses.replace(trial, seed=1),
        *(
            dataclasses.replace(trial, attack=dataclasses.replace(trial.attack, **change))
            for change in changes
        ),
    ]
    ids = {t.row_id(0) for t in [trial, *others]} | {trial.row_id(1)}
    assert len(ids) == len(others) + 2


def test_precision_of_products_tells_rows_apart():
    (trial, *_) = trials(weights=[0.1], images=DIGITS.take([0]))
    names = [trial.row_id(0)]
    for precision in ("float32", "tf32", "bfloat16"):
        with gl.device.precision.MatrixInputs(precision):
            names.append(trial.row_id(0))
    assert names[0] == names[1]
    assert len(set(names)) == 3


def test_records_are_of_one_data_set(records):
    other = dataclasses.replace(DIGITS, name="mnist")
    with pytest.raises(ValueError, match=r"one data set, these trials of \['digits', 'mnist'\]"):
        runs.run([*trials(), *trials(images=other)], records)


def test_rows_with_other_labels_lie_in_one_table(records):
    runs.run(trials(weights=[0.1]), records)
    changed = [dataclasses.replace(t, labels={"new": 1}) for t in trials(weights=[1.0])]
    runs.run(changed, records)
    table = records.read()
    assert table.new.notna().tolist() == [False] * 10 + [True] * 10
    assert table.defense.isna().tolist() == [False] * 10 + [True] * 10
    assert list(table)[:5] == ["id", "dataset", "split", "defense", "weight"]
    index = list(table).index("index")
    assert "new" in list(table)[:index]
    assert list(table)[index + 1 :][:4] == ["mse", "psnr", "ssim", "log_posterior"]


def test_what_differs_in_labels_only_is_computed_once_and_shown_twice(records, monkeypatch):
    (first, *_) = trials(weights=[0.1])
    one = dataclasses.replace(first, images=DIGITS.take([0, 1, 2]), keep=(0,))
    two = dataclasses.replace(first, labels={"arm": "two"}, keep=(1, 4))
    compute, computed = batches.compute, []

    def counted(batch, keep):
        computed.extend(i for _, images in batch for i in images.index)
        return compute(batch, keep)

    monkeypatch.setattr(runs, "compute", counted)
    table = runs.run([one, two], records)
    assert sorted(computed) == [0, 1, 2, 3, 4]
    assert table["index"].tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
    assert table.psnr[:3].tolist() == table.psnr[3:6].tolist()
    assert table.arm.tolist()[3:] == ["two"] * 5
    assert table.defense.isna().tolist() == [False] * 3 + [True] * 5
    pd.testing.assert_frame_equal(records.read(), table)
    assert set(records.pictures(table.id)) == {two.row_id(i) for i in (0, 1, 4)}
    assert records.facts()["seconds"] == pytest.approx(table.seconds[3:].sum(), abs=0.06)
    runs.run([two, one], records)
    assert len(computed) == 5


def test_what_decides_a_measured_row_besides_its_labels(records):
    """Another network, another image or another label is another row; the same is not."""
    other, few = gl.models.mlp((1, 8, 8), 10, widths=(16,), seed=1), DIGITS.take([0, 1])
    turned = dataclasses.replace(few, x=few.x.flip(-1))
    relabelled = dataclasses.replace(few, y=few.y + 1)
    decides = [MODEL, other, [MODEL, few], [MODEL, turned], [MODEL, relabelled], 1, ()]
    found = []
    for what in [*decides, *decides]:
        table = runs.measured([({"a": 1}, what, lambda: {"n": len(found)})], records)
        found.append(table.n.item())
    assert found == [*range(len(decides)), *range(len(decides))]
    assert len(runs.measured([({"a": 1}, MODEL, dict)] * 2, records)) == 1


def test_grid_is_every_combination():
    assert grid(a=[1, 2], b="x") == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]


@dataclasses.dataclass(frozen=True)
class Clip:
    """A defense of one's own, which compares equal whatever its limit."""

    limit: float = dataclasses.field(compare=False)

    def __call__(self, gradient):
        return gl.Normal(gradient.map(lambda v: v.clamp(-self.limit, self.limit)), 0.1)


def test_a_release_is_shared_by_equal_clients_and_images_only(records, tmp_path):
    """Equal indices of other images, other labels, or clients that only compare equal."""
    few = DIGITS.take([0, 1])
    other = dataclasses.replace(few, x=few.x.flip(3)), dataclasses.replace(few, y=few.y.flip(0))

    def trial(images, limit=1.0):
        client = gl.Client(MODEL, Clip(limit))
        held = gl.bayes(client, gl.Box(), optimizer=gl.Adam(steps=3))
        return gl.Trial(client, held, images, {"limit": limit})

    every = [trial(few), *map(trial, other), trial(few, 0.01)]
    together = runs.run(every, records).psnr.tolist()
    alone = [runs.run([t], Records(tmp_path / str(k), "r")).psnr for k, t in enumerate(every)]
    assert together == pytest.approx([v for psnr in alone for v in psnr], abs=1e-3)
    assert len(set(together)) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"psnr": 1}}, "may not be called as what is found or told: psnr"),
        ({"seed": 0.9}, "a seed is a whole number"),
        ({"attack": "dlg"}, "an attack inherits from gradleak.Attack"),
    ],
)
def test_what_is_no_trial_is_refused(change, message):
    (trial, *_) = trials()
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(trial, **change)


def test_what_is_no_field_of_a_dataclass_is_refused():
    defense = gl.GaussianNoise(0.1)
    object.__setattr__(defense, "extra", 1)
    client = gl.Client(MODEL, defense)
    with pytest.raises(ValueError, match="extra, which is no field"):
        gl.Trial(client, gl.dlg(client), DIGITS, {})


def batched(images=DIGITS.take(range(4)), batch=2, net=MODEL, attack=None, **changes):
    """A trial of clients that average over a batch."""
    client = gl.Client(net, gl.GaussianNoise(1e-3), batch_size=batch)
    prior = gl.Box() if attack is None else attack
    held = gl.bayes(client, prior, optimizer=gl.Adam(steps=30, decay=0.9, signed=True))
    return gl.Trial(client, held, images, {"who": "batch"}, **changes)


def test_clients_of_several_images_have_a_row_for_each(records):
    """Matched once, by one assignment for all scores and for the pictures."""
    few = gl.data.load("digits").take(range(6))
    trial = batched(few, 3, keep=few.index)
    table = runs.run([trial], records)
    assert table["index"].tolist() == list(few.index)
    assert table.batch_size.tolist() == [3] * 6
    x, y = few.x.unflatten(0, (2, 3)), few.y.unflatten(0, (2, 3))
    view = trial.client.release(x, y, key=[0, 3])
    found = trial.attack.attack(view)
    best = min(
        itertools.permutations(range(3)),
        key=lambda order: (found.x[0, list(order)] - x[0]).square().sum(),
    )
    assert table.mse[:3].tolist() == pytest.approx(gl.mse(found.x[0, list(best)], x[0]).tolist())
    x_hat = gl.metrics.match(found.x, x).flatten(0, 1)
    for name, metric in (("mse", gl.mse), ("psnr", gl.psnr), ("ssim", gl.ssim)):
        assert table[name].tolist() == pytest.approx(metric(x_hat, few.x).tolist(), abs=1e-3)
    each = found.log_posterior.repeat_interleave(3).tolist()
    assert table.log_posterior.tolist() == pytest.approx(each, rel=1e-3)
    kept = records.images(table.id)
    torch.testing.assert_close(kept, x_hat.clamp(0, 1), rtol=0, atol=1 / 255)


def test_all_images_of_a_client_decide_each_of_its_rows():
    few = DIGITS.take(range(4))
    names = {i: batched(few).row_id(i) for i in few.index}
    assert len(set(names.values())) == 4
    assert batched(few.take([2, 3])).row_id(3) == names[3]
    others = [
        batched(few.take([0, 2, 1, 3])),  # other mates
        batched(few.take([1, 0, 3, 2])),  # another first one, so other noise
        batched(few, 4),
        batched(dataclasses.replace(few, x=few.x.flip(0))),
        batched(dataclasses.replace(few, y=few.y.flip(0))),
        batched(few, seed=1),
        batched(few, 1),
    ]
    every = [t.row_id(i) for t in others for i in few.index]
    assert len({*names.values(), *every}) == 4 * (1 + len(others))


def test_an_interrupted_run_of_batches_goes_on(records, monkeypatch, tmp_path):
    monkeypatch.setitem(batches.AT_ONCE, "cpu", 1)
    trial, compute = batched(), batches.compute

    def stop(batch, keep):
        if 2 in batch[0][1].index:
            raise KeyboardInterrupt
        return compute(batch, keep)

    monkeypatch.setattr(runs, "compute", stop)
    with pytest.raises(KeyboardInterrupt):
        runs.run([trial], records)
    assert records.read()["index"].tolist() == [0, 1]
    monkeypatch.setattr(runs, "compute", compute)
    table = runs.run([trial], records)
    whole = runs.run([trial], Records(tmp_path / "whole", "r"))
    assert table.id.tolist() == whole.id.tolist()
    assert table.psnr.tolist() == pytest.approx(whole.psnr.tolist(), abs=1e-3)
    monkeypatch.setattr(runs, "compute", lambda *_: pytest.fail("computed again"))
    runs.run([trial], records)


@pytest.mark.parametrize(("count", "cure"), [(1, "4"), (3, "4"), (5, "4 or 8"), (11, "8 or 12")])
def test_images_that_make_no_whole_clients_are_refused(count, cure):
    few = gl.data.load("digits").take(range(count))
    said = rf"{count} images make no whole clients of 4.*give {cure}$"
    with pytest.raises(ValueError, match=said):
        batched(few, 4)
    with pytest.raises(ValueError, match="each under an index of its own"):
        batched(DIGITS.take([0, 1, 1, 2]))


def tabular(x, y=None):
    y = torch.arange(len(x)) % 3 if y is None else y
    return gl.data.Images("mine", "test", x, y, tuple(range(len(x))), 3)


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize(
    "shape", [(7,), (1,), (2, 9), (5, 5), (1, 4, 4), (2, 3, 4, 5), (1, 1, 1, 2, 3)]
)
def test_data_that_are_no_images_have_rows(records, shape, batch):
    """Tables, series, small images, volumes: standardised where they are no images."""
    torch.manual_seed(0)
    x = torch.rand(4, *shape) if len(shape) == 3 else 5 + 3 * torch.randn(4, *shape)
    size = x[0].numel()
    net = torch.nn.Sequential(torch.nn.Unflatten(0, (-1, 1)), torch.nn.Flatten(1))
    net.append(torch.nn.Linear(size, 8)).append(torch.nn.Tanh()).append(torch.nn.Linear(8, 3))
    trial = batched(tabular(x), batch, net, gl.Flat())
    table = runs.run([trial], records)
    assert len(table) == 4
    assert table.ssim.isna().all()
    view = trial.release(trial.images)
    x_hat = trial.attack.attack(view).x
    if batch:
        x_hat = gl.metrics.match(x_hat, x.unflatten(0, (2, 2))).flatten(0, 1)
    clipped = x_hat.clamp(0, 1) if len(shape) == 3 else x_hat
    error = (clipped - x).square().reshape(4, -1).mean(1)
    assert table.mse.tolist() == pytest.approx(error.tolist(), rel=1e-3)
    assert table.psnr.tolist() == pytest.approx((-10 * error.log10()).tolist(), abs=1e-2)


def test_what_cannot_be_a_picture_is_not_kept_as_one(records):
    net = torch.nn.Sequential(torch.nn.Linear(7, 3))
    inside = batched(tabular(torch.rand(4, 7)), None, net, keep=(1,))
    table = runs.run([inside], records)
    assert records.images(table.id[[1]]).shape == (1, 7)
    outside = tabular(torch.randn(4, 7))
    with pytest.raises(ValueError, match=r"kept as pictures.*leave keep out"):
        batched(outside, None, net, keep=(1,))
    batched(outside, None, net, keep=(9,))


@dataclasses.dataclass
class Scaled:
    """A defense that somebody may change."""

    scale: float

    def __call__(self, gradient):
        return gl.Normal(gradient, self.scale)


def test_what_was_changed_after_a_trial_was_made_has_the_name_of_what_it_became(records):
    def trial(scale, x):
        client = gl.Client(MODEL, Scaled(scale))
        held = gl.bayes(client, gl.Box(), optimizer=gl.Adam(steps=2))
        return gl.Trial(client, held, dataclasses.replace(DIGITS, x=x), {})

    first, other = DIGITS.x.clone(), DIGITS.x.clone() / 2
    expected = runs.run([trial(0.5, other)], records).drop(columns="seconds")
    before = runs.run([trial(0.1, first)], records)
    changed = trial(0.1, first)
    changed.client.defense.scale = 0.5
    first.numpy()[:] = other  # in place, unseen by PyTorch
    found = runs.run([changed], Records(records.folder / "anew", "some")).drop(columns="seconds")
    pd.testing.assert_frame_equal(found, expected)
    assert not set(found.id) & set(before.id)


def test_images_of_a_trial_have_indices_of_their_own():
    for images in (
        DIGITS.take([]),
        DIGITS.take([2, 2]),
        dataclasses.replace(DIGITS, index=(0,) * 5),
    ):
        with pytest.raises(ValueError, match="each under an index of its own"):
            dataclasses.replace(trials()[0], images=images)


@dataclasses.dataclass(frozen=True)
class Grey(gl.Attack):
    """Answers mid-grey, under columns of its own."""

    told: tuple[tuple[str, object], ...] = ()

    def columns(self):
        return dict(self.told)

    def attack(self, view, seed=0):
        return gl.attacks.answered(torch.full((len(view), *view.shape), 0.5), 0.0)


CLIENT = gl.Client(MODEL)


@pytest.mark.parametrize("name", ["psnr", "id", "index", "batch_size", "true_defense", "seconds"])
def test_no_column_hides_what_was_found(name):
    with pytest.raises(ValueError, match=rf"may not be called.*: {name}"):
        gl.Trial(CLIENT, Grey(((name, 1),)), DIGITS, {})
    with pytest.raises(ValueError, match=rf"may not be called.*: {name}"):
        gl.Trial(CLIENT, Grey(), DIGITS, {name: 1})
    with pytest.raises(ValueError, match=r"may not be called.*: how"):
        gl.Trial(CLIENT, Grey((("how", 1),)), DIGITS, {"how": 2})


@pytest.mark.parametrize("value", [None, [1], torch.ones(1), 1j, float("nan"), b"a", 2**70])
def test_columns_of_an_attack_are_plain(value):
    with pytest.raises(ValueError, match="the label how is"):
        gl.Trial(CLIENT, Grey((("how", value),)), DIGITS, {})


@pytest.mark.parametrize("two", [(1, True), (1, 1.0), (0, False), (0.0, -0.0), (2, 2.0)])
def test_labels_that_python_takes_for_equal_are_refused(records, two):
    with pytest.raises(ValueError, match=r"takes for equal.*give both the same, or texts"):
        runs.run([gl.Trial(CLIENT, Grey(), DIGITS, {"who": label}) for label in two], records)
    one, other = (gl.Trial(CLIENT, Grey(), DIGITS, {"who": label}) for label in two)
    before = Records(records.folder, "before")
    runs.run([one], before)
    with pytest.raises(ValueError, match=r"takes for equal.*before: records.forget"):
        runs.run([other], before)
    before.forget()
    runs.run([other], before)
    assert len(before.export(records.folder).read()) == len(DIGITS)
    both = [gl.Trial(CLIENT, Grey(), DIGITS, {"who": label}) for label in ("1", 1)]
    runs.run(both, records)
    assert records.export(records.folder).read().who.tolist() == 5 * ["1"] + 5 * [1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"client": None}, "client must be a Client"),
        ({"client": MODEL}, "client must be a Client"),
        ({"images": None}, "images must be a Images"),
        ({"images": (DIGITS.x, DIGITS.y)}, "images must be a Images"),
        ({"keep": 3}, "keep must be a Collection"),
        ({"keep": None}, "keep must be a Collection"),
        ({"keep": "3"}, "keep must be a whole number"),
        ({"keep": ["3"]}, "keep must be a whole number"),
        ({"keep": [True]}, "keep must be a whole number"),
        ({"keep": [1.5]}, "keep must be a whole number"),
    ],
)
def test_parts_of_a_trial_are_what_they_are_called(changes, told):
    with pytest.raises(ValueError, match=told):
        gl.Trial(**{"client": CLIENT, "attack": Grey(), "images": DIGITS, "labels": {}} | changes)


@pytest.mark.parametrize("bad", ["r.csv", None, 3, Path("r")])
def test_records_are_records(bad):
    with pytest.raises(ValueError, match=r"records must be a Records.*Records\(folder, name\)"):
        runs.run([gl.Trial(CLIENT, Grey(), DIGITS, {})], bad)
    with pytest.raises(ValueError, match="records must be a Records"):
        runs.measured([], bad)


@pytest.mark.parametrize("bad", [gl.Trial(CLIENT, Grey(), DIGITS, {}), None, [3], "trial"])
def test_trials_are_a_list_of_them(records, bad):
    with pytest.raises(ValueError, match="trials must be"):
        runs.run(bad, records)


@pytest.mark.parametrize("order", list(itertools.permutations(["a", "b", "c"])))
def test_the_order_of_labels_is_none_of_a_rows(records, order):
    trial = gl.Trial(CLIENT, Grey(), DIGITS, {"a": 1, "b": 2, "c": "x"})
    runs.run([trial], records)
    runs.run([dataclasses.replace(trial, labels={k: trial.labels[k] for k in order})], records)
    assert records.export(records.folder).read().c.tolist() == ["x"] * len(DIGITS)


@pytest.mark.parametrize("command", [None, 3, ["gradleak"]])
def test_a_command_is_a_text(records, command):
    with pytest.raises(ValueError, match="command must be a str"):
        runs.run([gl.Trial(CLIENT, Grey(), DIGITS, {})], records, command)


@pytest.mark.parametrize("cells", [None, 3, [3], [None], [({}, ())], [({}, (), 3)]])
def test_cells_are_a_list_of_three_parts(records, cells):
    with pytest.raises(ValueError, match=r"cells? must be"):
        runs.measured(cells, records)


@pytest.mark.parametrize("found", [None, 3.0, [1], {"a": None}, {"a": torch.ones(2)}, {3: 1}])
def test_functions_return_columns(records, found):
    with pytest.raises(ValueError, match=r"must return a dict|the label a is|a label's name"):
        runs.measured([({"who": "me"}, (), lambda: found)], records)


@pytest.mark.parametrize("axis", [None, 3, 0.5, gl.Box()])
def test_an_axis_is_some_values(axis):
    with pytest.raises(ValueError, match=r"the axis b must be a Iterable.*\[value\]"):
        grid(a=[1], b=axis)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), np.float32(0.5), torch.tensor(0.5), np.int64(3), True, "a"],
)
def test_what_a_function_found_is_not_lost(records, value):
    """Hours may lie behind it: numbers of NumPy and PyTorch are taken, and what is unknown is."""
    table = runs.measured([({"who": "me"}, (), lambda: {"found": value})], records)
    plain = value.item() if hasattr(value, "item") else value
    assert table.found[0] == plain or (plain != plain and pd.isna(table.found[0]))
