import dataclasses

import pandas as pd
import pytest
import torch

import gradleak as gl
from gradleak.experiment import batches, records, runs
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


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="seconds")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results" / "some.csv"


def test_rows_hold_what_was_computed(path):
    table = runs.run(trials(), path, "a command")
    assert len(table) == 20
    row = table[(table.defense == "LaplaceNoise") & (table.weight == 1.0)].iloc[3]
    trial = trials()[3]
    view = trial.client.release(DIGITS.x, DIGITS.y, key=DIGITS.index)
    x_hat = trial.attack.attack(view, restarts=2).x
    assert row.psnr == pytest.approx(gl.psnr(x_hat, DIGITS.x)[3].item(), abs=1e-3)
    assert row.ssim == pytest.approx(gl.ssim(x_hat, DIGITS.x)[3].item(), abs=1e-3)
    assert row.belief == "LaplaceNoise(scale=0.1)"
    assert (row["index"], row.dataset, row.split) == (3, "digits", "test")
    image = records.images(path, [row.id])[0]
    torch.testing.assert_close(image, x_hat[3].clamp(0, 1), rtol=0, atol=0.5 / 255 + 1e-4)
    known = records.facts(path)
    assert known["command"] == "a command"
    assert known["rows"] == 20


def test_a_reconstruction_that_was_not_kept_is_computed_again(path):
    first = runs.run(trials(keep=()), path)
    assert not records.stored(path)
    again = runs.run(trials(keep=(3,)), path)
    pd.testing.assert_frame_equal(first, again)
    assert len(records.read(path)) == len(first)
    ids = again.id[again["index"] == 3]
    assert records.stored(path) == set(ids)
    x_hat = records.images(path, ids)
    psnr = gl.psnr(x_hat, DIGITS.x[[3]].expand_as(x_hat))
    assert psnr.tolist() == pytest.approx(again.psnr[again["index"] == 3].tolist(), abs=0.1)


def test_a_finished_run_costs_nothing(path, monkeypatch):
    first = runs.run(trials(), path)
    content = path.read_bytes()
    monkeypatch.setattr(runs, "compute", lambda batch: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(runs.run(trials(), path), first)
    assert path.read_bytes() == content


@pytest.mark.parametrize("cut", [1, 30, 400])
def test_a_killed_run_continues_where_it_was(path, cut):
    """Cut the file anywhere: the torn row is dropped, and only what is missing is computed."""
    whole = runs.run(trials(), path)
    path.write_bytes(path.read_bytes()[:-cut])
    pd.testing.assert_frame_equal(comparable(runs.run(trials(), path)), comparable(whole))
    assert len(records.read(path)) == 20


def test_an_interruption_loses_at_most_a_batch(path, monkeypatch):
    monkeypatch.setitem(batches.AT_ONCE, "cpu", 4)
    compute, calls = batches.compute, []

    def stop_in_the_third_batch(batch, transforming):
        calls.append(batch)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(batch, transforming)

    monkeypatch.setattr(runs, "compute", stop_in_the_third_batch)
    with pytest.raises(KeyboardInterrupt):
        runs.run(trials(), path)
    assert len(records.read(path)) == 4
    monkeypatch.setattr(runs, "compute", compute)
    assert len(runs.run(trials(), path)) == 20


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
    adversary = gl.bayes(client, gl.Box(), optimizer=gl.Adam(steps=2))
    trial = gl.Trial(client, adversary, few, {})
    assert len(gl.experiment.run([trial], tmp_path / "r.csv")) == 2


def test_more_trials_are_added_to_a_file(path):
    few = runs.run(trials(weights=[0.1], images=DIGITS.take([0, 1])), path)
    more = runs.run(trials(), path)
    assert len(records.read(path)) == 20
    same = more[more.id.isin(few.id)].set_index("id").loc[few.id]
    assert same.psnr.tolist() == few.psnr.tolist()


def test_settings_are_computed_together_where_they_can_be():
    found = list(batches.batches(trials(), set(), set()))
    assert [len(batch) for batch in found] == [2, 2]


def test_rows_of_one_network_are_not_taken_for_anothers(path, tmp_path):
    """Equal labels, equal reprs; other networks, weights, losses and images of the same index."""
    few = DIGITS.take([0, 1])
    nets = [gl.models.mlp(few.shape, 10, (16,), seed=s) for s in (0, 1)]
    nets.append(gl.models.lenet(few.shape, 10))

    def go(net, file, loss=torch.nn.CrossEntropyLoss(), images=few):
        client = gl.Client(net, loss=loss)
        held = gl.inverting_gradients(client, optimizer=gl.Adam(steps=5, signed=True))
        return runs.run([gl.Trial(client, held, images, {"model": "mine"})], file).psnr.tolist()

    smooth = torch.nn.CrossEntropyLoss(label_smoothing=0.5)
    cells = [(net, {}) for net in nets] + [(nets[0], {"loss": smooth})]
    cells.append((nets[0], {"images": dataclasses.replace(few, x=few.x.flip(3))}))
    found = [go(net, path, **others) for net, others in cells]
    assert found == [go(net, tmp_path / f"{k}.csv", **c) for k, (net, c) in enumerate(cells)]
    assert len(set(map(str, found))) == len(cells)


def test_a_network_that_is_trained_between_two_runs_is_another(path):
    """Also where the trial was made before."""
    net = gl.models.mlp((1, 8, 8), 10, widths=(16,))
    client = gl.Client(net)
    held = gl.bayes(client, gl.Box(), optimizer=gl.Adam(steps=2, signed=True))
    held = dataclasses.replace(held, client=gl.Client(net, gl.Direction()))
    trial = gl.Trial(client, held, DIGITS, {})
    first = runs.run([trial], path)
    with torch.no_grad():
        net.dense1.weight.mul_(2)
    second = runs.run([trial], path)
    assert not set(first.id) & set(second.id)


def test_precision_of_products_tells_rows_apart(path):
    (trial, *_) = trials(weights=[0.1], images=DIGITS.take([0]))
    names = [trial.row_id(0)]
    for precision in ("float32", "tf32", "bfloat16"):
        with gl.device.precision.MatrixInputs(precision):
            names.append(trial.row_id(0))
    assert names[0] == names[1]
    assert len(set(names)) == 3


def test_records_of_another_data_set_or_version_are_not_mixed(path, monkeypatch):
    runs.run(trials(weights=[0.1]), path)
    other = dataclasses.replace(DIGITS, name="mnist")
    with pytest.raises(ValueError, match="dataset digits, this run has mnist"):
        runs.run(trials(images=other), path)
    monkeypatch.setattr(runs, "__version__", "9.9")
    with pytest.raises(ValueError, match=r"this run has 9\.9; move the file away"):
        runs.run(trials(), path)
    with pytest.raises(ValueError, match="one data set"):
        runs.run([*trials(), *trials(images=other)], path)


def test_rows_with_other_columns_are_not_mixed(path):
    runs.run(trials(weights=[0.1]), path)
    changed = [dataclasses.replace(t, labels={"new": 1}) for t in trials()]
    with pytest.raises(ValueError, match="other columns"):
        runs.run(changed, path)


def test_two_runs_never_write_one_file(path):
    with (
        records.only_writer(path),
        pytest.raises(RuntimeError, match=r"another run is writing .*some\.csv"),
    ):
        runs.run(trials(), path)
    assert not path.exists()
    runs.run(trials(weights=[0.1]), path)


def test_only_the_rows_that_were_used_are_published(path, tmp_path):
    runs.run(trials(), path)
    path.with_suffix(".ids").unlink()  # a new run begins
    used = runs.run(trials(weights=[0.1]), path)
    records.copy_used(path, tmp_path / "published")
    copy = tmp_path / "published" / path.name
    pd.testing.assert_frame_equal(records.read(copy), used)
    assert records.facts(copy)["rows"] == len(used)
    kept = used[used["index"].isin([0, 3])]
    assert torch.equal(records.images(copy, kept.id), records.images(path, kept.id))


def test_accuracies_are_measured_once(path):
    other = gl.models.mlp((1, 8, 8), 10, widths=(16,), seed=1)
    networks = [({"seed": 0}, lambda: MODEL), ({"seed": 1}, lambda: other)]
    table = runs.accuracies(networks, DIGITS, path, "a command")
    assert table.accuracy.tolist() == [gl.train.accuracy(m, DIGITS) for m in (MODEL, other)]
    again = runs.accuracies([(networks[1][0], None)], DIGITS, path)
    assert again.accuracy.tolist() == table.accuracy.tolist()[1:]
    assert records.facts(path)["command"] == "a command"
    with pytest.raises(ValueError, match="holds records of dataset"):
        runs.accuracies(networks, dataclasses.replace(DIGITS, name="other"), path)


def test_grid_is_every_combination():
    assert grid(a=[1, 2], b="x") == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]


def test_missing_records_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no records at"):
        records.read(tmp_path / "none.csv")
