"""The SQLite file of a folder's records: what is committed outlives a kill at any moment."""

import atexit
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

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
    """The database, made if it is not there, in one transaction; writers wait for one another."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    with closing(sqlite3.connect(path, timeout=60, isolation_level="IMMEDIATE")) as db:
        _prepare(db)
        _hold(path.resolve(), path.stat().st_ino, os.getpid())
        with db:
            yield db


@cache
def _hold(path: Path, inode: int, process: int) -> None:
    # Closing the last connection writes the log back, which takes a disk's time: one stays open.
    held = sqlite3.connect(path, check_same_thread=False)
    held.execute("SELECT 1 FROM commands LIMIT 1").fetchall()
    atexit.register(held.close)


def _prepare(db: sqlite3.Connection, tries: int = 200) -> None:
    # Of two that give a new file its write-ahead log at once, one is refused without a wait.
    for left in reversed(range(tries)):
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last batches
            db.executescript(SCHEMA)
            return
        except sqlite3.OperationalError:
            if not left:
                raise
            time.sleep(0.05)
