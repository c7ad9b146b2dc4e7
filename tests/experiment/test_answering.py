import pytest
import torch
from gradleak.answering import answers

import gradleak as gl


def test_rows_are_scored_kept_and_not_computed_twice(tmp_path):
    images = gl.data.load("digits").take([3, 5, 8])
    calls = []

    def guess():
        calls.append(1)
        return {"grey": torch.full_like(images.x, 0.5), "cheat": images.x.clone()}

    cells = [({"scale": 0.1}, ["grey", "cheat"], guess)]
    path = tmp_path / "a.csv"
    table = answers(cells, images, path, keep=[5])
    again = answers(cells, images, path, keep=[5])
    assert len(calls) == 1
    assert table.equals(again)
    assert list(table.adversary) == ["grey"] * 3 + ["cheat"] * 3
    assert list(table["index"]) == [3, 5, 8] * 2
    assert (table.mse[3:] == 0).all()
    torch.testing.assert_close(
        torch.tensor(table.psnr[:3].tolist(), dtype=torch.float),
        gl.psnr(torch.full_like(images.x, 0.5), images.x),
    )
    kept = gl.experiment.records.images(path, table[table["index"] == 5].id)
    assert torch.allclose(kept[1], images.x[1], atol=1 / 255)
    assert gl.experiment.records.facts(path)["rows"] == 6
    more = answers(cells, images, path, keep=[3, 5])
    assert len(calls) == 2  # what was not kept
    assert more.equals(table)
    assert gl.experiment.records.stored(path) == set(table[table["index"].isin([3, 5])].id)
    other = tmp_path / "b.csv"
    elsewhere = answers([({"scale": 1}, ["grey"], guess)], images, other, keep=[8])
    ids = [elsewhere.id.iloc[2], table.id.iloc[0]]
    together = gl.experiment.records.images([path, other], ids)
    assert torch.equal(together[:1], gl.experiment.records.images(other, ids[:1]))
    assert torch.equal(together[1:], gl.experiment.records.images(path, ids[1:]))


def test_answers_to_something_else_are_told(tmp_path):
    images = gl.data.load("digits").take([0, 1])
    for found in ({"other": images.x}, {"asked": images.x[:1]}):
        with pytest.raises(ValueError, match="'asked' should answer"):
            answers([({}, ["asked"], lambda: found)], images, tmp_path / "a.csv")  # noqa: B023
