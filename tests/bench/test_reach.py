"""Seconds to a PSNR: engine and loop go the same way, so that only their time differs."""

from pathlib import Path

import torch

from gradleak import data
from gradleak.bench import reach


def test_both_come_as_near_in_as_many_steps(monkeypatch):
    monkeypatch.setattr(reach, "LENGTHS", (5, 20))
    images = data.load("digits").take(range(3))
    rows = list(reach.run(images, torch.device("cpu"), 1))
    assert [(row["way"], row["steps"]) for row in rows] == [
        ("engine", 5), ("loop", 5), ("engine", 20), ("loop", 20)
    ]  # fmt: skip
    for together, alone in zip(rows[::2], rows[1::2], strict=True):
        assert abs(together["psnr"] - alone["psnr"]) < 0.1
        assert together["seconds"] > 0
    assert rows[2]["psnr"] > rows[0]["psnr"] + 1


def test_its_record_lies_beside_the_one_of_steps():
    folder = Path("records")
    assert reach.beside(folder / "bench-cpu.csv") == folder / "reach-cpu.csv"
    assert reach.beside(folder / "mine.csv") == folder / "reach-mine.csv"
