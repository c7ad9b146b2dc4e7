"""Seconds to a PSNR: engine and loop go the same way, so that only their time differs."""

import torch

from gradleak.bench import reach


def test_both_come_as_near_in_as_many_steps(monkeypatch):
    monkeypatch.setattr(reach, "LENGTHS", (5, 20))
    monkeypatch.setattr(reach, "DATASET", "digits")
    monkeypatch.setattr(reach, "IMAGES_ATTACKED", 3)
    rows = list(reach.run(torch.device("cpu"), 1))
    assert [(row["way"], row["steps"]) for row in rows] == [
        ("engine", 5), ("loop", 5), ("engine", 20), ("loop", 20)
    ]  # fmt: skip
    for together, alone in zip(rows[::2], rows[1::2], strict=True):
        assert abs(together["psnr"] - alone["psnr"]) < 0.1
        assert together["seconds"] > 0
    assert rows[2]["psnr"] > rows[0]["psnr"] + 1
