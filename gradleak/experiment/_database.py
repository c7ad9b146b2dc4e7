"""The SQLite file of a folder's records: what is committed outlives a kill at any moment."""

import atexit
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from gradleak.files import DamagedError

FILE = "records.sqlite"
# found: the columns that were computed. told: those that say what a row is of, which may differ for
# one row, as labels do not decide it. made: where and when it was computed. name: of the records
# that a row was asked for in, chapter: by whom.
SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (id TEXT PRIMARY KEY, found TEXT, made TEXT);
CREATE TABLE IF NOT EXISTS pictures (id TEXT PRIMARY KEY, shape TEXT, pixels BLOB);
CREATE TABLE IF NOT EXISTS asked (name TEXT, chapter TEXT, id TEXT, told TEXT,
                                  UNIQUE (name, chapter, id, told));
CREATE TABLE IF NOT EXISTS commands (name TEXT, chapter TEXT, command TEXT,
                                     PRIMARY KEY (name, chapter));
"""


@contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database, made if it is not there, in one transaction; writers wait for one another.

    Raises DamagedError for a file that is none, and OSError where it cannot be written.
    """
    path = folder / FILE
    with _named(path):
        folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=60, isolation_level="IMMEDIATE")) as db:
            _prepare(db)
            _hold(path.resolve(), path.stat().st_ino, os.getpid())
            with db:
                yield db


@contextmanager
def read(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database, to be read only: in a folder where nothing can be written, a copy of it."""
    path = folder / FILE
    if not path.exists() or all(os.access(p, os.W_OK) for p in (folder, path)):
        with opened(folder) as db:
            yield db
        return
    # SQLite wants to write beside a file that it reads, and what was written last may lie there.
    with _named(path), tempfile.TemporaryDirectory() as copy:
        for each in folder.glob(f"{FILE}*"):
            shutil.copyfile(each, Path(copy, each.name))
        with closing(sqlite3.connect(Path(copy, FILE))) as db:
            _prepare(db)
            _check(db)
            yield db


def rows_kept(folder: Path, chapter: str, profile: str) -> int:
    """How many of the rows that a chapter asked for in a profile are there."""
    query = """SELECT count(DISTINCT id) FROM asked JOIN rows USING (id)
               WHERE chapter = ? AND name LIKE '%-' || ? || '-%'"""
    if not (folder / FILE).exists():
        return 0
    with read(folder) as db:
        ((count,),) = db.execute(query, [chapter, profile])
    return count


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the file say its name and the cure."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        why = getattr(error, "strerror", None) or error
        raise OSError(
            f"records cannot be kept in {path} ({why}): name a folder that can be written and has "
            "room, such as -p results=FOLDER"
        ) from error
    except DamagedError:
        raise
    except (sqlite3.DatabaseError, ValueError) as error:
        raise DamagedError(
            f"{path} is no database of records, or damaged ({error}): move it away and run the "
            "command again, which takes over what is published and computes the rest"
        ) from error


@cache
def _hold(path: Path, inode: int, process: int) -> None:
    # Closing the last connection writes the log back, which takes a disk's time: one stays open.
    held = sqlite3.connect(path, check_same_thread=False)
    try:
        _check(held)
    except BaseException:
        held.close()
        raise
    atexit.register(held.close)


def _check(db: sqlite3.Connection) -> None:
    """Raise where the file is damaged, or a table of ours is none, or another's."""
    ((sound,),) = db.execute("PRAGMA quick_check(1)")
    if sound != "ok":
        raise sqlite3.DatabaseError(sound)
    with closing(sqlite3.connect(":memory:")) as ours:
        ours.executescript(SCHEMA)
        for table, columns in _columns(ours).items():
            if (found := _columns(db).get(table, [])) != columns:
                raise ValueError(f"its table {table} has the columns {', '.join(found)}")


def _columns(db: sqlite3.Connection) -> dict[str, list[str]]:
    """Each table with its columns."""
    tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    query = "SELECT name FROM pragma_table_info(?)"
    return {table: [name for (name,) in db.execute(query, [table])] for (table,) in tables}


def _prepare(db: sqlite3.Connection, tries: int = 200) -> None:
    # Of two that give a new file its write-ahead log at once, one is refused without a wait.
    for left in reversed(range(tries)):
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last batches
            db.executescript(SCHEMA)
            return
        except sqlite3.OperationalError as error:
            if "already" in str(error):  # something else has a name of ours
                raise ValueError(str(error)) from error
            if not left:
                raise
            time.sleep(0.05)
