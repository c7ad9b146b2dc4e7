import numpy as np
import pytest

import gradleak as gl

TRAIN, TEST = gl.data.load("digits", "train"), gl.data.load("digits", "test")
MODEL = gl.models.mlp((1, 8, 8), 10, widths=(16,))
SPACE = gl.experiment.grid(weight=[1e3, 0.3], temperature=[1.0, 4.0])
CELLS = gl.experiment.grid(scale=[0.01, 1.0])


def trial(scale, weight, temperature, images=TRAIN.take(range(3))):
    client = gl.Client(MODEL, gl.GaussianNoise(scale))
    search = gl.Adam(steps=30, signed=True)
    adversary = gl.bayes(
        client, gl.TotalVariation(weight), optimizer=search, temperature=temperature
    )
    return gl.Trial(client, adversary, images, {"scale": scale, "weight": weight})


def test_the_setting_with_the_highest_mean_psnr_wins(tmp_path):
    records = gl.experiment.Records(tmp_path, "t")
    found = gl.experiment.tune(trial, CELLS, SPACE, TEST, records)
    for cell, best in zip(CELLS, found, strict=True):
        scores = [
            gl.experiment.run(
                [trial(**cell, **s)], gl.experiment.Records(tmp_path, "alone")
            ).psnr.mean()
            for s in SPACE
        ]
        assert best == SPACE[int(np.argmax(scores))]
    assert found[0]["weight"] == 0.3, "a prior that drowns what was released loses"
    table = records.read()
    assert len(table) == 2 * 4 * 3
    assert set(table.split) == {"train"}


def test_tuning_on_what_is_evaluated_is_refused(tmp_path):
    def on_test(**setting):
        return trial(**setting, images=TEST.take([7, 9]))

    records = gl.experiment.Records(tmp_path, "t")
    with pytest.raises(ValueError, match=r"images \[9\] of digits \(test\) are tuned on"):
        gl.experiment.tune(on_test, CELLS, SPACE, TEST.take([8, 9]), records)
    assert not list(tmp_path.iterdir())


def test_nothing_to_tune(tmp_path):
    with pytest.raises(ValueError, match="nothing to tune: 2 cells and 0 settings"):
        gl.experiment.tune(trial, CELLS, [], TEST, gl.experiment.Records(tmp_path, "t"))


def test_a_setting_that_finds_no_number_does_not_win(tmp_path, monkeypatch):
    from gradleak.experiment import tuning

    def diverged(trials, records, command):
        table = gl.experiment.run(trials, records, command)
        return table.assign(psnr=table.psnr.where(table.weight != 1e3))

    monkeypatch.setattr(tuning, "run", diverged)
    records = gl.experiment.Records(tmp_path, "t")
    assert gl.experiment.tune(trial, CELLS, SPACE, TEST, records)[1]["weight"] != 1e3
