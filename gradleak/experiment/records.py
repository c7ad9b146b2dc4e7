"""Records: one row for each reconstruction, named by what decides it and computed once.

Those of a folder lie in one SQLite file. Nothing is read through pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from gradleak.experiment._database import FILE, opened
from gradleak.experiment.exported import NAMES, Exported, images, table_of

Plain = str | int | float
Asked = Sequence[tuple[str, Mapping[str, Plain]]]
"""Names of rows, each with the columns that tell what it is of: labels, parameters, index."""

AMONG = "id IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True)
class Records:
    """What the present run of a chapter asked for, in the database of a folder.

    A row lies there once, whoever asks for it and under whatever labels.
    name: such as soteria-quick-cifar10: chapter, profile and data set; the chapter is the one that
        asks unless `chapter` says another, which then shares these records.
    committed: folder of exports; rows that are missing come from the export of this name there.
    """

    folder: Path
    name: str
    committed: Path | None = None
    chapter: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "chapter", self.chapter or self.name.split("-")[0])

    @classmethod
    def of(cls, folder: Path, chapter: str, profile: str) -> list[Records]:
        """All records in a folder that a chapter asked for in a profile."""
        if not (folder / FILE).exists():
            return []
        query = "SELECT name FROM commands WHERE chapter = ? ORDER BY name"
        with opened(folder) as db:
            names = [name for (name,) in db.execute(query, [chapter])]
        return [cls(folder, n, None, chapter) for n in names if n.split("-")[1:2] == [profile]]

    def beside(self, what: str) -> Records:
        """The records of another kind that belong to these, such as `accuracy`."""
        return replace(self, name=f"{self.name}-{what}")

    def others(self) -> list[Exported]:
        """What is committed of the same kind, of other profiles and data sets."""
        chapter, *_, kind = [*self.name.split("-", 3), "", "", ""][:4]
        paths = self.committed.glob(f"{chapter}-*-*.csv") if self.committed else ()
        alike = [p for p in sorted(paths) if [*p.stem.split("-", 3), ""][3] == kind]
        return [Exported(path) for path in alike if path.stem != self.name]

    def read(self) -> pd.DataFrame:
        """The rows asked for that are there, in the order in which they were asked for."""
        return self.rows(self._asked(self.chapter))

    def facts(self) -> dict[str, Any]:
        """What is known of the rows, and how many of those asked for are missing."""
        return self._facts(self.chapter)

    def images(self, ids: Iterable[str]) -> Tensor:
        """Kept reconstructions (N, C, H, W) in [0, 1], stored with 8 bits, by row id."""
        ids = list(ids)
        return images(self.pictures(ids), ids)

    def pictures(self, ids: Iterable[str]) -> dict[str, np.ndarray]:
        """Those reconstructions of rows that are kept, as they are stored."""
        query = f"SELECT id, shape, pixels FROM pictures WHERE {AMONG}"
        with opened(self.folder) as db:
            return {id: np.frombuffer(blob, np.uint8).reshape(json.loads(shape)).copy()
                    for id, shape, blob in db.execute(query, [_listed(ids)])}  # fmt: skip

    def export(self, folder: Path) -> Exported:
        """Write what all chapters asked for that is there, facts and pictures as plain files."""
        exported, table = Exported(folder / f"{self.name}.csv"), self.rows(self._asked("%"))
        exported.write(table, self._facts("%"), self.pictures(table["id"]))
        return exported

    def ask(self, asked: Asked, command: str) -> None:
        """Note what a run asks for, and the command that makes it."""
        own = (self.name, self.chapter)
        rows = [(*own, id, json.dumps(told)) for id, told in asked]
        with opened(self.folder) as db:
            db.execute("INSERT OR REPLACE INTO commands VALUES (?, ?, ?)", [*own, command])
            db.executemany("INSERT OR IGNORE INTO asked VALUES (?, ?, ?, ?)", rows)

    def forget(self) -> None:
        """Forget what was asked for, for a new run to say; the rows stay."""
        with opened(self.folder) as db:
            for table in ("asked", "commands"):
                query = f"DELETE FROM {table} WHERE name = ? AND chapter = ?"
                db.execute(query, [self.name, self.chapter])

    def have(self, ids: Iterable[str], keep: Iterable[str] = ()) -> tuple[set[str], set[str]]:
        """Which of these rows are there, and which of them with a picture.

        If rows, or pictures of those to `keep`, are missing, committed ones are taken over first.
        """
        found = self._have(ids)
        if self.committed and not (found[0].issuperset(ids) and found[1].issuperset(keep)):
            export = Exported(self.committed / f"{self.name}.csv")
            if export.path.exists() and not os.environ.get("GRADLEAK_CARRY"):
                check_names(export)
                adopt(self, export)
                return self._have(ids)
        return found

    def add(
        self,
        rows: Mapping[str, Mapping[str, Plain]],
        pictures: Mapping[str, np.ndarray],
        made: Mapping[str, str],
    ) -> None:
        """Add what was found for rows, and pictures, by row id: all of them or, if stopped, none.

        What is there already stays as it is. made: where it was computed, see `exported.made`.
        """
        where = json.dumps(dict(made))
        found = [(id, json.dumps(dict(row), default=_plain), where) for id, row in rows.items()]
        kept = [(id, json.dumps(x.shape), x.tobytes()) for id, x in pictures.items()]
        with opened(self.folder) as db:
            db.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?, ?)", found)
            db.executemany("INSERT OR IGNORE INTO pictures VALUES (?, ?, ?)", kept)

    def rows(self, asked: Asked) -> pd.DataFrame:
        """The rows of these names that are there, with what each was asked for under."""
        query = f"SELECT id, found FROM rows WHERE {AMONG}"
        with opened(self.folder) as db:
            found = dict(db.execute(query, [_listed(id for id, _ in asked)]).fetchall())
        return table_of([(id, told, json.loads(found[id])) for id, told in asked if id in found])

    def _asked(self, by: str) -> Asked:
        query = """SELECT id, told FROM asked WHERE name = ? AND chapter LIKE ?
                   GROUP BY id, told ORDER BY min(rowid)"""
        if (self.folder / FILE).exists():
            with opened(self.folder) as db:
                asked = [(id, json.loads(t)) for id, t in db.execute(query, [self.name, by])]
            if asked:
                return asked
        raise FileNotFoundError(
            f"no records called {self.name} in {self.folder / FILE}; experiment.run makes them"
        )

    def _facts(self, by: str) -> dict[str, Any]:
        asked = self._asked(by)
        table = self.rows(asked)
        query = """SELECT made FROM rows JOIN asked USING (id) WHERE name = ? AND chapter LIKE ?
                   GROUP BY made ORDER BY min(asked.rowid)"""
        select = "SELECT command FROM commands WHERE name = ? AND chapter LIKE ? ORDER BY rowid"
        with opened(self.folder) as db:
            made = [json.loads(text) for (text,) in db.execute(query, [self.name, by])]
            commands = [command for (command,) in db.execute(select, [self.name, by])]

        def told(name: str, where: Iterable[Mapping[str, Any]] = made) -> str:
            return "; ".join(dict.fromkeys(str(m[name]) for m in where if name in m))

        return {
            "command": " && ".join(commands),
            "seconds": round(float(table.drop_duplicates("id")["seconds"].sum()), 1),
            "dataset": told("dataset", (t for _, t in asked)),
            "version": told("version"),
            "rows": len(table),
            "date": max((m["date"] for m in made), default=""),
            "hardware": told("hardware"),
            "torch": told("torch"),
            "python": told("python"),
            "names": NAMES,
            "missing": len(asked) - len(table),
            **({"carried": told("carried")} if told("carried") else {}),
        }

    def _have(self, ids: Iterable[str]) -> tuple[set[str], set[str]]:
        listed = [_listed(ids)]
        with opened(self.folder) as db:
            here, kept = (
                {id for (id,) in db.execute(f"SELECT id FROM {table} WHERE {AMONG}", listed)}
                for table in ("rows", "pictures")
            )
        return here, kept


def adopt(records: Records, exported: Exported) -> None:
    """Take over the rows and pictures of an export, once. Their names are believed."""
    digest = hashlib.sha256()
    for suffix in (".csv", ".json", ".npz"):
        path = exported.path.with_suffix(suffix)
        digest.update(path.read_bytes() if path.exists() else b"")
    with opened(records.folder) as db:
        known = db.execute("SELECT 1 FROM adopted WHERE digest = ?", [digest.hexdigest()])
        if known.fetchone():
            return
    table, facts = exported.read(), exported.facts()
    # What stands behind the index was found. What functions return has none, and is taken whole:
    # the labels in it are those that it is asked for under.
    after = table.columns.get_loc("index") + 1 if "index" in table else 1
    found = table[table.columns[after:]].to_dict("records")
    rows = dict(zip(table["id"], found, strict=True))
    where = ("version", "date", "hardware", "torch", "python", "carried")
    made = {k: facts[k] for k in where if k in facts}
    records.add(rows, exported.pictures(), made)
    with opened(records.folder) as db:
        db.execute("INSERT OR IGNORE INTO adopted VALUES (?)", [digest.hexdigest()])


def check_names(exported: Exported) -> None:
    """Raise ValueError if the rows of an export are named in an older way."""
    if exported.facts().get("names") != NAMES:
        chapter, profile = [*exported.name.split("-"), "quick"][:2]
        raise ValueError(
            f"{exported.path} names its rows in an older way, so they are not found again; carry "
            f"them over with: gradleak carry {chapter} --profile {profile}"
        )


def pixels(x: Tensor) -> np.ndarray:
    """One reconstruction (C, H, W) as it is stored: clipped to [0, 1], with 8 bits."""
    return (x.clamp(0, 1) * 255).round().byte().numpy()


def _listed(ids: Iterable[str]) -> str:
    return json.dumps(list(ids))


def _plain(value: Any) -> Plain:
    """What NumPy or PyTorch hold, as Python does."""
    return value.item()
