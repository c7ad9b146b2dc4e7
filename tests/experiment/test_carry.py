"""Old rows get the names that rows have now, where three of each cell still agree."""

import json
from dataclasses import replace

import pytest

import gradleak as gl
from gradleak.experiment import Exported, Records, run

FEW = gl.data.load("digits").take(range(6))
CLIENT = gl.Client(gl.models.mlp(FEW.shape, 10, (16,)), gl.GaussianNoise(0.5))
TRIALS = [
    gl.Trial(CLIENT, gl.bayes(CLIENT, gl.TotalVariation(w), optimizer=gl.Adam(steps=5)), FEW,
             {"adversary": "Bayes", "scale": 0.5, "weight": w}, keep=(0, 5))
    for w in (0.1, 1.0)
]  # fmt: skip


@pytest.fixture
def older(tmp_path):
    """An export of the trials whose rows have other names and whose facts know no layout."""
    exported = Records(tmp_path / "then", "toy-quick-digits")
    run(TRIALS, exported, "gradleak run toy")
    exported = exported.export(tmp_path / "committed")
    table, pictures = exported.read(), exported.pictures()
    facts = {k: v for k, v in exported.facts().items() if k not in ("names", "missing")}
    pictures = {f"old{k}": v for k, v in pictures.items()}
    exported.write(table.assign(id="old" + table.id), facts, pictures)
    return Records(tmp_path / "now", "toy-quick-digits", tmp_path / "committed")


def test_an_older_layout_is_refused_with_its_cure(older):
    with pytest.raises(ValueError, match="gradleak carry toy --profile quick"):
        run(TRIALS, older)


def test_rows_are_carried_over_and_not_computed_again(older, monkeypatch):
    committed = Exported(older.committed / f"{older.name}.csv")
    table = committed.read().assign(mse=7.0)  # tells what was carried from what was computed
    committed.write(table, committed.facts(), committed.pictures())
    monkeypatch.setenv("GRADLEAK_CARRY", "1")
    found = run(TRIALS, older)
    assert (found.mse == 7.0).all()
    assert found.psnr.tolist() == pytest.approx(table.psnr.tolist())
    assert older.images(found.id[found["index"] == 5]).shape == (2, 1, 8, 8)
    facts = older.facts()
    assert "three of each cell" in facts["carried"]
    assert facts["date"] == json.loads(committed.path.with_suffix(".json").read_text())["date"]


def test_a_cell_that_does_not_agree_is_computed_anew(older, monkeypatch):
    committed = Exported(older.committed / f"{older.name}.csv")
    table = committed.read().assign(mse=7.0)
    table.loc[table.weight == 1.0, "psnr"] += 2.0
    committed.write(table, committed.facts(), committed.pictures())
    monkeypatch.setenv("GRADLEAK_CARRY", "1")
    found = run(TRIALS, older)
    assert (found.mse == 7.0).tolist() == (found.weight == 0.1).tolist()


def test_a_row_whose_picture_was_not_kept_is_computed_with_it(older, monkeypatch):
    committed = Exported(older.committed / f"{older.name}.csv")
    committed.write(committed.read().assign(mse=7.0), committed.facts(), {})
    monkeypatch.setenv("GRADLEAK_CARRY", "1")
    found = run(TRIALS, older)
    shown = found["index"].isin([0, 5])
    assert (found.mse == 7.0).tolist() == (~shown).tolist()
    x = FEW.x[found["index"][shown].tolist()]
    mse = (older.images(found.id[shown]) - x).square().flatten(1).mean(1)
    assert mse.tolist() == pytest.approx(found.mse[shown].tolist(), abs=1e-3)


def test_other_settings_find_no_old_row(older, monkeypatch):
    monkeypatch.setenv("GRADLEAK_CARRY", "1")
    other = [replace(t, labels={**t.labels, "scale": 0.4}) for t in TRIALS]
    run(other, older)
    assert "carried" not in older.facts()
