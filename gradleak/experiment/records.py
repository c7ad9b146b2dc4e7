"""Records: one row for each reconstruction, named by what decides it and computed once.

Those of a folder lie in one SQLite file. Nothing is read through pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from gradleak.experiment._database import FILE, opened, read
from gradleak.experiment.exported import MADE, NAMES, WHOLE, Exported, images, table_of
from gradleak.files import DamagedError
from gradleak.scales import check_kind, refuse

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
        check_kind("folder", self.folder, (str, Path))
        check_kind("name", self.name, str)
        check_kind("chapter", self.chapter, str)
        printable = self.name.isprintable() and "/" not in self.name
        if not printable or not 0 < len(self.name.encode()) < 200:
            refuse("name", "what a file can be called, up to 199 letters without /", self.name)
        object.__setattr__(self, "folder", Path(self.folder))
        if self.committed is not None:
            check_kind("committed", self.committed, (str, Path))
            object.__setattr__(self, "committed", Path(self.committed))
        object.__setattr__(self, "chapter", self.chapter or self.name.split("-")[0])

    @classmethod
    def of(cls, folder: Path, chapter: str, profile: str) -> list[Records]:
        """All records in a folder that a chapter asked for in a profile."""
        folder = Path(folder)
        if not (folder / FILE).exists():
            return []
        query = "SELECT name FROM commands WHERE chapter = ? ORDER BY name"
        with read(folder) as db:
            names = [name for (name,) in db.execute(query, [chapter])]
        return [cls(folder, n, None, chapter) for n in names if n.split("-")[1:2] == [profile]]

    def beside(self, what: str) -> Records:
        """The records of another kind that belong to these, such as `accuracy`."""
        return replace(self, name=f"{self.name}-{what}")

    def exported(self, folder: Path) -> Exported:
        """Where the export of these records lies in a folder."""
        return Exported(Path(folder) / f"{self.name}.csv")

    def others(self) -> list[Exported]:
        """What is committed of the same kind, of other profiles and data sets."""

        def kind(name: str) -> tuple[str, list[str]]:
            return name.split("-")[0], name.split("-", 3)[3:]

        paths = sorted(self.committed.glob("*.csv")) if self.committed else []
        return [Exported(path) for path in paths
                if kind(path.stem) == kind(self.name) and path.stem != self.name]  # fmt: skip

    def read(self) -> pd.DataFrame:
        """The rows asked for that are there, in the order in which they were asked for."""
        return self.rows(self._asked())

    def facts(self) -> dict[str, Any]:
        """What is known of the rows, and how many of those asked for are missing."""
        asked, table, by = self._asked(), self.read(), [self.name, self.chapter]
        query = """SELECT made FROM rows JOIN asked USING (id)
                   WHERE name = ? AND ? IN (chapter, '%') GROUP BY made ORDER BY min(asked.rowid)"""
        select = (
            "SELECT command FROM commands WHERE name = ? AND ? IN (chapter, '%') ORDER BY rowid"
        )
        with read(self.folder) as db:
            made = [_object(text) for (text,) in db.execute(query, by)]
            commands = [str(command) for (command,) in db.execute(select, by)]

        def told(name: str, where: Iterable[Mapping[str, Any]] = made) -> str:
            return "; ".join(dict.fromkeys(str(m[name]) for m in where if name in m))

        facts = {
            "command": " && ".join(commands),
            "seconds": round(float(table.drop_duplicates("id")["seconds"].sum()), 1),
            "dataset": told("dataset", (t for _, t in asked)),
            "version": told("version"),
            "rows": len(table),
            "date": max((m.get("date", "") for m in made), default=""),
            **{name: told(name) for name in ("hardware", "torch", "python")},
            "names": NAMES,
            "missing": len(asked) - len(table),
        }
        return facts | ({"carried": told("carried")} if told("carried") else {})

    def images(self, ids: Sequence[str]) -> Tensor:
        """Kept reconstructions (N, C, H, W) in [0, 1], stored with 8 bits, by row id."""
        return images(self.pictures(ids), ids)

    def pictures(self, ids: Iterable[str]) -> dict[str, np.ndarray]:
        """Those reconstructions of rows that are kept, as they are stored."""
        query = f"SELECT id, shape, pixels FROM pictures WHERE {AMONG}"
        with read(self.folder) as db:
            return {id: _pixels(shape, blob)
                    for id, shape, blob in db.execute(query, [_listed(ids)])}  # fmt: skip

    def export(self, folder: Path, whole: bool = True) -> Exported:
        """Write what all chapters asked for that is there, facts and pictures as plain files.

        whole: whether their runs have ended. Rows of an earlier export stay where they have not,
        and where another chapter asked for them, which has not run here.
        """
        exported, every = self.exported(folder), replace(self, chapter="%")
        table, facts = every.read(), every.facts()
        pictures = self.pictures(table["id"])
        if exported.path.exists() and exported.facts().get("names") == NAMES:
            here, there = (told["command"].split(" && ") for told in (facts, exported.facts()))
            ran = [_chapter(command) for command in here]
            other = [command for command in there if _chapter(command) not in ran]
            if other or not whole:
                old = _named(exported)
                table = pd.concat([table, old[~old["id"].isin(table["id"])]])
                pictures |= exported.pictures()
                told = {"command": " && ".join([facts["command"], *other]), "rows": len(table)}
                facts |= told | {"seconds": round(float(table["seconds"].sum()), 1)}
        exported.write(table, facts, pictures)
        return exported

    def ask(self, asked: Asked, command: str) -> None:
        """Note what a run asks for, and the command that makes it, unless both are known.

        Raises OSError where the folder cannot be written, and ValueError for labels of one row that
        differ from others, of this run or one before, in what a table does not tell: 1 from True.
        """
        check_kind("command", command, str)
        own = (self.name, self.chapter)
        rows = [(*own, id, json.dumps(told)) for id, told in asked]
        if self._knows(rows, (*own, command)):
            return
        _check_labels_differ([*replace(self, chapter="%")._told(), *asked])
        with opened(self.folder) as db:
            db.execute("INSERT OR REPLACE INTO commands VALUES (?, ?, ?)", [*own, command])
            db.executemany("INSERT OR IGNORE INTO asked VALUES (?, ?, ?, ?)", rows)

    def forget(self) -> None:
        """Forget what was asked for, for a new run to say; the rows stay."""
        with opened(self.folder) as db:
            for table in ("asked", "commands"):
                query = f"DELETE FROM {table} WHERE name = ? AND chapter = ?"
                db.execute(query, [self.name, self.chapter])

    def missing(self, ids: Iterable[str], keep: Iterable[str] = ()) -> set[str]:
        """Which of these rows are not there, or without a picture that is to be kept.

        Committed ones are taken over first. Raises ValueError if those have names of an older way.
        """
        wanted = {"rows": set(ids), "pictures": set(keep)}
        missing = self._missing(wanted)
        if missing and self.committed and not os.environ.get("GRADLEAK_CARRY"):
            export = self.exported(self.committed)
            if export.path.exists():
                _adopt(self, export, export.path.stat().st_mtime_ns)
                return self._missing(wanted)
        return missing

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
        # What NumPy or PyTorch hold is written as Python's own.
        found = [(id, json.dumps(dict(row), default=lambda value: value.item()), where)
                 for id, row in rows.items()]  # fmt: skip
        kept = [(id, json.dumps(x.shape), x.tobytes()) for id, x in pictures.items()]
        with opened(self.folder) as db:
            db.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?, ?)", found)
            db.executemany("INSERT OR IGNORE INTO pictures VALUES (?, ?, ?)", kept)

    def rows(self, asked: Asked) -> pd.DataFrame:
        """The rows of these names that are there, with what each was asked for under."""
        query = f"SELECT id, found FROM rows WHERE {AMONG}"
        with read(self.folder) as db:
            here = db.execute(query, [_listed(id for id, _ in asked)])
            found = {id: _found(text) for id, text in here}
        return table_of([(id, told, found[id]) for id, told in asked if id in found])

    def _knows(self, asked: Sequence[tuple[str, ...]], command: tuple[str, ...]) -> bool:
        if not (self.folder / FILE).exists():
            return False
        with read(self.folder) as db:
            asked_for, commands = (
                set(db.execute(f"SELECT * FROM {t} WHERE name = ? AND chapter = ?", command[:2]))
                for t in ("asked", "commands")
            )
        return asked_for.issuperset(asked) and command in commands

    def _told(self) -> Asked:
        """What was asked for, each once, however its labels are ordered; nothing if none was."""
        if not (self.folder / FILE).exists():
            return []
        query = """SELECT id, told FROM asked WHERE name = ? AND ? IN (chapter, '%')
                   GROUP BY id, told ORDER BY min(rowid)"""
        with read(self.folder) as db:
            rows = [(id, _object(told))
                    for id, told in db.execute(query, [self.name, self.chapter])]  # fmt: skip
        first = {(id, frozenset(told.items())): (id, told) for id, told in reversed(rows)}
        return list(first.values())[::-1]

    def _asked(self) -> Asked:
        if rows := self._told():
            return rows
        raise FileNotFoundError(
            f"no records called {self.name} in {self.folder / FILE}; experiment.run makes them"
        )

    def _missing(self, wanted: Mapping[str, set[str]]) -> set[str]:
        missing: set[str] = set()
        with read(self.folder) as db:
            for table, ids in wanted.items():
                here = db.execute(f"SELECT id FROM {table} WHERE {AMONG}", [_listed(ids)])
                missing |= ids.difference(id for (id,) in here)
        return missing


def _pixels(shape: object, blob: object) -> np.ndarray:
    """A picture; ValueError, which `read` names, for what is none."""
    if not isinstance(shape, str) or not isinstance(blob, bytes):
        raise ValueError("a picture holds no pixels")
    return np.frombuffer(blob, np.uint8).reshape(json.loads(shape)).copy()


def _object(text: object) -> dict[str, Any]:
    """What a cell of the database tells; ValueError, which `read` names, for what is no object."""
    try:
        held = json.loads(text) if isinstance(text, str) else text
    except RecursionError:
        held = "brackets in brackets"
    if not isinstance(held, dict):
        raise ValueError(f"a row holds {held!r:.99}, and not what was found")
    return held


def _found(text: object) -> dict[str, Any]:
    held = _object(text)
    if not held or not isinstance(held.get("seconds", 0.0), int | float):
        raise ValueError(f"a row holds {held!r:.99}, and not what was found, with its seconds")
    return held


def _check_labels_differ(asked: Asked) -> None:
    told: dict[Hashable, str] = {}
    for id, labels in asked:
        text = json.dumps(dict(labels), sort_keys=True)
        known = told.setdefault((id, frozenset(labels.items())), text)
        if known != text:
            raise ValueError(
                "two trials differ only in labels that Python takes for equal, as 1, 1.0 and True "
                f"are: {known:.300} and {text:.300}; give both the same, or texts, or forget what "
                "was asked for before: records.forget()"
            )


def _named(exported: Exported) -> pd.DataFrame:
    """The rows of an export of records; DamagedError where they have no names."""
    table = exported.read()
    if "id" not in table:
        raise DamagedError(f"{exported.path} does not name its rows (no column id): {WHOLE}")
    return table


@cache
def _adopt(records: Records, exported: Exported, changed: int) -> None:
    """Take over the rows and pictures of an export, once as long as it does not change."""
    facts, table = exported.facts(), _named(exported)
    if facts.get("names") != NAMES:
        chapter, profile = [*exported.name.split("-"), "quick"][:2]
        raise ValueError(
            f"{exported.path} names its rows in an older way, so they are not found again; carry "
            f"them over with: gradleak carry {chapter} --profile {profile}"
        )
    # What stands behind the index was found. What functions return has none, and is taken whole:
    # the labels in it are those that it is asked for under.
    after = table.columns.get_loc("index") + 1 if "index" in table else 0
    # One row may stand there under several labels.
    rows = table[["id", *table.columns[after:].drop("id", errors="ignore")]].drop_duplicates()
    if rows.id.duplicated().any():
        twice = rows.id[rows.id.duplicated()].iloc[0]
        raise DamagedError(f"{exported.path} tells two things of the row {twice}: {WHOLE}")
    found = {row.pop("id"): row for row in rows.to_dict("records")}
    made = {k: facts[k] for k in (*MADE, "carried") if k in facts}
    records.add(found, exported.pictures(), made)


def _listed(ids: Iterable[str]) -> str:
    return json.dumps(list(ids))


def _chapter(command: str) -> list[str]:
    return command.split()[2:3]  # gradleak run CHAPTER ...
