"""Records as they are published: plain files that any program reads."""

from __future__ import annotations

import io
import json
import platform
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradleak.device import precision
from gradleak.experiment import _cells
from gradleak.files import sound, whole
from gradleak.scales import check_kind
from gradleak.version import __version__

NAMES = 2  # how rows are named; raised when equal computations get other names
WHOLE = "fetch it again (git checkout), or delete it and run and publish the chapter anew"
MAYBE = ("transform", "ball")  # columns that hold the repr of what need not be there
MADE = ("version", "date", "hardware", "torch", "python")  # where and when something was computed


@dataclass(frozen=True)
class Exported:
    """The records in a .csv; beside it the facts (.json) and the kept reconstructions (.npz)."""

    path: Path

    def __post_init__(self) -> None:
        check_kind("path", self.path, (str, Path))
        object.__setattr__(self, "path", Path(self.path))

    @property
    def name(self) -> str:
        """What the records are called, such as soteria-quick-cifar10."""
        return self.path.stem

    def beside(self, what: str) -> Exported:
        """The export of another kind that belongs to this one, such as `accuracy`."""
        return Exported(self.path.with_name(f"{self.name}-{what}.csv"))

    def read(self) -> pd.DataFrame:
        """One row for each reconstruction, its name in the column `id`.

        Values come back as what they were, texts as texts. Raises FileNotFoundError where nothing
        is, and ValueError for a damaged file or one with more or fewer rows than its facts say.
        """
        if not self.path.exists():
            raise FileNotFoundError(f"no records at {self.path}; gradleak publish writes them")
        told = self.facts().get("rows") if self.path.with_suffix(".json").exists() else None
        with sound(self.path, "a table", WHOLE):
            table = _cells.read(self.path.read_bytes().decode("utf-8-sig"))
            if told not in (None, len(table)):
                raise ValueError(f"it has {len(table)} rows and its facts tell of {told}")
            if "id" in table and table.duplicated().any():
                raise ValueError(f"it has the row {table.id[table.duplicated()].iloc[0]} twice")
        return table

    def facts(self) -> dict[str, Any]:
        """What is known of the records: command, seconds, dates, hardware and versions.

        Raises FileNotFoundError where they are not there, and ValueError for a damaged file.
        """
        path = self.path.with_suffix(".json")
        with sound(path, "facts of records", WHOLE, RecursionError):
            facts = json.loads(path.read_text("utf-8"))
            if not (isinstance(facts, dict) and isinstance(facts.get("command"), str)):
                raise ValueError("they do not tell the command")
        return facts

    def images(self, ids: Sequence[str]) -> Tensor:
        """Kept reconstructions (N, C, H, W) in [0, 1], stored with 8 bits, by row id."""
        return images(self.pictures(), ids)

    def pictures(self) -> dict[str, np.ndarray]:
        """All kept reconstructions as they are stored, by row id; ValueError for a damaged file."""
        path = self.path.with_suffix(".npz")
        if not path.exists():
            return {}
        damaged = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, MemoryError, RuntimeError)
        # Not by np.load, which takes what is no archive for a pickle, and advises to allow it.
        with sound(path, "pictures", WHOLE, *damaged), zipfile.ZipFile(path) as file:
            files = {name.removesuffix(".npy"): io.BytesIO(file.read(name))
                     for name in file.namelist()}  # fmt: skip
            pictures = {name: np.lib.format.read_array(each) for name, each in files.items()}
            if not all((p.dtype, p.ndim) == (np.uint8, 3) for p in pictures.values()):
                raise ValueError("an entry is no picture of 8 bits")
        return pictures

    def write(
        self,
        table: pd.DataFrame,
        facts: Mapping[str, Any],
        pictures: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Write the files, each whole; the same records always make the same bytes."""
        with whole(self.path) as path:
            path.write_bytes(_cells.written(table).encode())
        with whole(self.path.with_suffix(".json")) as path:
            path.write_text(json.dumps(facts, indent=1) + "\n")
        self.path.with_suffix(".npz").unlink(missing_ok=True)
        if pictures:
            with whole(self.path.with_suffix(".npz")) as path:
                np.savez_compressed(path, **dict(sorted(pictures.items())))


def images(pictures: Mapping[str, np.ndarray], ids: Sequence[str]) -> Tensor:
    """Stored reconstructions of rows, (N, C, H, W) in [0, 1]; KeyError where none was kept."""
    missing = [i for i in ids if i not in pictures]
    if missing:
        raise KeyError(
            f"no reconstructions of the rows {missing[:5]} are kept: give their trials keep=, the "
            "indices of their images"
        )
    return torch.from_numpy(np.stack([pictures[i] for i in ids])).float() / 255


def table_of(rows: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]]) -> pd.DataFrame:
    """Columns: id, what each row is of, its index, what was found; in the order of the longest."""
    told, found = (
        dict.fromkeys(k for row in sorted((r[part] for r in rows), key=len, reverse=True)
                      for k in row) for part in (1, 2)
    )  # fmt: skip
    columns = ["id", *sorted(told, key=lambda name: name == "index"), *found]
    # Of what was not there a table says nothing.
    cells = [{k: np.nan if v == "None" and k in MAYBE else v
              for k, v in ({**found, "id": id, **told}).items()}
             for id, told, found in rows]  # fmt: skip
    table = pd.DataFrame(cells, columns=dict.fromkeys(columns) if rows else ["id", "seconds"])
    for score in {"psnr_x", "ssim_x"} & set(table):  # where nothing transforms images, of the same
        table[score] = table[score].fillna(table[score.removesuffix("_x")])
    return table


def made(device: torch.device) -> dict[str, str]:
    """Where and when something is computed: version, date, hardware, and those of its software."""
    return {
        "version": __version__,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "hardware": _hardware(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision.chosen()}"
    info, threads = Path("/proc/cpuinfo"), torch.get_num_threads()  # there on Linux alone
    model = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.is_file() else None
    processor = model[1] if model else platform.processor() or platform.machine()
    return f"{threads} CPU thread{'s' * (threads > 1)}, {processor}"
