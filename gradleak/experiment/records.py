"""Record files: a .csv with one row for each reconstruction, and beside it the facts of the run
(.json) and the kept reconstructions (.npz). Plain formats; nothing is read through pickle."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from gradleak.device import precision

Plain = str | int | float


def read(path: Path | str) -> pd.DataFrame:
    """The records of a file, one row for each reconstruction."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no records at {path}; experiment.run writes them")
    return pd.read_csv(path, dtype={"id": str})


def facts(path: Path | str) -> dict[str, Any]:
    """What is known of a record file: command, hardware, dates, versions, total seconds."""
    return json.loads(Path(path).with_suffix(".json").read_text())


def images(path: Path | str | Sequence[Path], ids: Iterable[str]) -> Tensor:
    """Kept reconstructions (N, C, H, W) in [0, 1], stored with 8 bits, by row id.

    path: of the record file, or of several that hold them together.
    """
    paths = [Path(path)] if isinstance(path, Path | str) else path
    with ExitStack() as open_files:
        stores = [open_files.enter_context(np.load(p.with_suffix(".npz"))) for p in paths]
        where = {name: store for store in stores for name in store.files}
        return torch.from_numpy(np.stack([where[i][i] for i in ids])).float() / 255


def pixels(x: Tensor) -> np.ndarray:
    """One reconstruction (C, H, W) as it is stored: clipped to [0, 1], with 8 bits."""
    return (x.clamp(0, 1) * 255).round().byte().numpy()


def stored(path: Path) -> set[str]:
    """Ids of the rows whose reconstructions are kept."""
    if not path.with_suffix(".npz").exists():
        return set()
    with np.load(path.with_suffix(".npz")) as kept:
        return set(kept.files)


def append(path: Path, rows: list[dict[str, Plain]], kept: dict[str, np.ndarray]) -> None:
    """Add rows to the file and flush; images first, so that no row lacks its image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kept:
        store = path.with_suffix(".npz")
        if store.exists():
            with np.load(store) as stored:
                kept = {**{k: stored[k] for k in stored.files}, **kept}
        partial = store.with_suffix(".partial.npz")
        np.savez_compressed(partial, **kept)
        partial.replace(store)
    if not rows:
        return
    new = not path.exists()
    columns = list(rows[0]) if new else list(pd.read_csv(path, nrows=0).columns)
    if set(columns) != set(rows[0]):
        raise ValueError(
            f"{path} has other columns ({set(columns) ^ set(rows[0])}); use another record file"
        )
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Hold the file for one run; raises RuntimeError if another run holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            yield
    except Timeout:
        raise RuntimeError(
            f"another run is writing {path}; wait until it has ended, or name another record file"
        ) from None


def mark_used(path: Path, ids: Iterable[str]) -> None:
    """Note beside the file (.ids) which of its rows the present run asked for."""
    with path.with_suffix(".ids").open("a") as file:
        file.writelines(f"{i}\n" for i in ids)


def used(path: Path) -> pd.DataFrame:
    """The rows that the present run asked for."""
    table = read(path)
    return table[table["id"].isin(path.with_suffix(".ids").read_text().split())]


def copy_used(path: Path, folder: Path) -> None:
    """Copy a record file, its facts and its pictures into a folder: only the rows marked used."""
    folder.mkdir(parents=True, exist_ok=True)
    table = used(path)
    table.to_csv(folder / path.name, index=False, lineterminator="\n")
    seconds = round(float(table["seconds"].sum()), 1)
    known = {**facts(path), "rows": len(table), "seconds": seconds}
    _write_json(folder / path.name, known)
    if path.with_suffix(".npz").exists():
        with np.load(path.with_suffix(".npz")) as stored:
            kept = {k: stored[k] for k in sorted(set(table["id"]) & set(stored.files))}
        np.savez_compressed(folder / f"{path.stem}.npz", **kept)


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that an interruption left unfinished."""
    if not path.exists():
        return
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        whole = content[: content.rfind(b"\n") + 1]
        path.write_bytes(whole) if whole else path.unlink()


def begin(path: Path, **expected: Plain) -> set[str]:
    """Make the file ready to be written to; the ids of the rows that it holds. See `check`."""
    check(path, **expected)
    drop_torn_line(path)
    return set(read(path)["id"]) if path.exists() else set()


def check(path: Path, **expected: Plain) -> None:
    """Raise ValueError if the file's facts are known and differ from those expected."""
    if not (path.exists() and path.with_suffix(".json").exists()):
        return
    known = facts(path)
    for what, value in expected.items():
        if known.get(what) != value:
            raise ValueError(
                f"{path} holds records of {what} {known.get(what)}, this run has {value}; move the "
                "file away or name another one"
            )


def write_facts(path: Path, device: torch.device, **more: Plain) -> None:
    """Write what is known of the records: date, hardware, versions, and `more`."""
    what = {
        **more,
        "rows": len(read(path)),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "hardware": hardware(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    _write_json(path, what)


def _write_json(path: Path, what: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial.json")
    partial.write_text(json.dumps(what, indent=1) + "\n")
    partial.replace(path.with_suffix(".json"))


def hardware(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision.chosen()}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
