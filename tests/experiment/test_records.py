"""Records outlive kills, go on anywhere, and are published as plain files."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st

import gradleak as gl
from gradleak.experiment import Exported, Records, batches, made, run, runs
from gradleak.experiment.trials import TAKEN
from gradleak.files import DamagedError

DIGITS = gl.data.load("digits").take(range(5))
MODEL = gl.models.mlp((1, 8, 8), 10, widths=(16,))
HERE = made(torch.device("cpu"))


def trials(weights=(0.1, 1.0), keep=(0, 3)):
    client = gl.Client(MODEL, gl.GaussianNoise(0.1))
    return [
        gl.Trial(
            client,
            gl.bayes(client, gl.TotalVariation(w), optimizer=gl.Adam(steps=4)),
            DIGITS,
            {"weight": w},
            keep=keep,
        )
        for w in weights
    ]


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "results", "toy-quick-digits", tmp_path / "committed")


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="seconds")


@pytest.fixture
def computed(monkeypatch):
    """How many rows each batch computes, in batches of four."""
    monkeypatch.setitem(batches.AT_ONCE, "cpu", 4)
    compute, sizes = batches.compute, []

    def counted(batch, keep):
        rows, kept = compute(batch, keep)
        sizes.append(len(rows))
        return rows, kept

    monkeypatch.setattr(runs, "compute", counted)
    return sizes


# The third batch is killed before it is kept, or between its first row and the end of its
# transaction.
KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_records as t
from gradleak.experiment import Records, batches, run, runs

batches.AT_ONCE["cpu"] = 4
records, compute, calls = Records(Path(sys.argv[2]), "toy-quick-digits"), batches.compute, []

def until_the_third(batch, keep):
    calls.append(batch)
    if len(calls) == 3:
        if sys.argv[3] == "writing":
            db = sqlite3.connect(records.folder / "records.sqlite", isolation_level=None)
            db.execute("BEGIN IMMEDIATE")
            db.execute("PRAGMA cache_spill = 1")
            db.executemany("INSERT INTO rows VALUES (?, ?, ?)",
                           [(f"{i}", "torn" * 9999, "") for i in range(200)])
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(batch, keep)

runs.compute = until_the_third
run(t.trials(), records, "a command")
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["computing", "writing"])
def test_a_killed_run_goes_on_where_it_was(records, computed, tmp_path, moment):
    words = [sys.executable, "-c", KILLED, Path(__file__).parent, records.folder, moment]
    killed = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = records.read()
    assert len(before) == 8
    assert records.facts()["missing"] == 2
    table = run(trials(), records)
    assert computed == [2], "what was kept is not computed again"
    assert records.facts()["missing"] == 0
    pd.testing.assert_frame_equal(table[:8], before)
    whole = run(trials(), Records(tmp_path / "elsewhere", "whole"))
    pd.testing.assert_frame_equal(comparable(table), comparable(whole))


def test_many_may_write_at_once(tmp_path):
    """Into a database that none of them finds there; each keeps its own and what all have."""

    def write(k):
        own = Records(tmp_path / "new", f"toy-{k}")
        for i in range(15):
            rows = {f"{k}-{i}": {"seconds": 1.0, "n": i}, f"shared-{i}": {"seconds": 1.0, "n": i}}
            own.ask([(id, {"index": i}) for id in rows], "")
            own.add(rows, {f"{k}-{i}": np.full((1, 2, 2), k, np.uint8)}, HERE)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    for k in range(8):
        table = Records(tmp_path / "new", f"toy-{k}").read()
        assert table.n.tolist() == [i for i in range(15) for _ in range(2)]
    ids = [f"{k}-{i}" for k in range(8) for i in range(15)]
    shown = Records(tmp_path / "new", "any").images(ids)
    assert torch.equal(shown[:, 0, 0, 0] * 255, torch.arange(8.0).repeat_interleave(15))


def test_an_export_says_what_the_records_say_and_always_the_same_bytes(records, tmp_path):
    table = run(trials(), records, "a command")
    exported = [records.export(tmp_path / name) for name in ("a", "b")]
    for suffix in (".csv", ".json", ".npz"):
        first, second = (e.path.with_suffix(suffix).read_bytes() for e in exported)
        assert first == second
    pd.testing.assert_frame_equal(exported[0].read(), table)
    pd.testing.assert_frame_equal(records.read(), table)
    facts = exported[0].facts()
    assert facts == records.facts()
    assert list(facts) == ["command", "seconds", "dataset", "version", "rows", "date", "hardware",
                           "torch", "python", "names", "missing"]  # fmt: skip
    assert (facts["command"], facts["rows"], facts["dataset"]) == ("a command", 10, "digits")
    assert facts["seconds"] == pytest.approx(table.seconds.sum(), abs=0.06)
    kept = table.id[table["index"].isin([0, 3])]
    assert set(exported[0].pictures()) == set(kept)
    assert torch.equal(exported[0].images(kept), records.images(kept))
    without = Exported(tmp_path / "a" / exported[0].path.name)
    without.write(table, facts)
    assert not without.pictures(), "pictures of what was there before are gone"


def test_only_what_the_last_run_asked_for_is_published(records, tmp_path):
    run(trials(), records)
    (found,) = Records.of(records.folder, "toy", "quick")
    assert not Records.of(records.folder, "toy", "paper")
    found.forget()
    assert not Records.of(records.folder, "toy", "quick")
    with pytest.raises(FileNotFoundError, match="no records called toy-quick-digits"):
        records.read()
    last = run(trials(weights=[1.0]), records)
    copy = records.export(tmp_path / "published")
    pd.testing.assert_frame_equal(copy.read(), last)
    assert set(copy.pictures()) == set(last.id[last["index"].isin([0, 3])])


def test_a_run_goes_on_from_what_is_committed(records, computed):
    """A fresh clone computes what the export of a stopped run lacks, and no more."""
    elsewhere = Records(records.folder.parent / "elsewhere", records.name)
    first = run(trials(weights=[0.1]), elsewhere, "a command")
    old = {**elsewhere.facts(), "hardware": "abacus", "date": "1999-12-31"}
    shown = elsewhere.export(records.committed)
    shown.write(shown.read(), old, shown.pictures())
    computed.clear()
    table = run(trials(), records, "a command")
    assert computed == [4, 1]
    pd.testing.assert_frame_equal(table[:5], first)
    assert torch.equal(records.images(first.id[[0, 3]]), elsewhere.images(first.id[[0, 3]]))
    assert records.facts()["hardware"] == f"abacus; {HERE['hardware']}"
    assert records.facts()["date"] == HERE["date"]
    run(trials(weights=[0.1], keep=(0, 1)), records)
    assert computed == [4, 1, 1], "a picture that was not kept is made"


def test_what_functions_returned_goes_on_from_what_is_committed(records):
    cells = [({"dataset": "digits", "n": n}, (), lambda n=n: {"square": n * n}) for n in range(3)]
    elsewhere = Records(records.folder.parent / "elsewhere", records.name)
    first = runs.measured(cells, elsewhere)
    elsewhere.export(records.committed)
    lazy = [(*cell[:2], lambda: pytest.fail("was committed")) for cell in cells]
    pd.testing.assert_frame_equal(
        runs.measured(lazy[::-1], records), first[::-1].reset_index(drop=True)
    )


def test_an_export_of_an_older_layout_says_how_to_carry_it_over(records):
    shown = Exported(records.committed / "toy-quick-digits.csv")
    shown.write(pd.DataFrame({"id": ["a"]}), {"command": "gradleak run toy"})
    with pytest.raises(ValueError, match="gradleak carry toy --profile quick"):
        run(trials(weights=[0.1]), records)


def test_a_table_has_the_score_against_the_private_image_where_another_row_has_it(records):
    """Rows may come from a run in which nothing transformed its images."""
    found = {"a": {"psnr": 1.0, "ssim": 0.5}, "b": {"psnr": 2.0, "ssim": 0.1, "psnr_x": 3.0}}
    records.add({i: {**row, "seconds": 0.0} for i, row in found.items()}, {}, HERE)
    assert records.rows([("a", {}), ("b", {})]).psnr_x.tolist() == [1.0, 3.0]


def test_numbers_come_back_as_they_were(records):
    values = dict(zip("abcdef", np.random.default_rng(0).normal(size=6).tolist(), strict=True))
    found = {**values, "infinite": -np.inf, "whole": 3, "numpy": np.float32(0.1), "text": "x,\n'"}
    records.add({"i": found}, {}, HERE)
    records.ask([("i", {"label": "None", "index": 2})], "")
    records.add({"i": {"a": 0.0}}, {}, HERE)  # what is there stays
    row = records.rows([("i", {"label": "None", "index": 2})]).iloc[0].to_dict()
    expected = {**found, "numpy": float(np.float32(0.1)), "id": "i", "index": 2, "label": "None"}
    assert row == expected


def test_missing_records_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no records called some in"):
        Records(tmp_path, "some").read()
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="no records at"):
        Exported(tmp_path / "none.csv").read()
    with pytest.raises(KeyError, match="no reconstructions of the rows"):
        Records(tmp_path, "some").images(["a"])


def test_two_chapters_share_records_and_each_says_what_it_asked_for(records, tmp_path):
    other = dataclasses.replace(records, chapter="tables")
    run(trials(weights=[0.1]), records, "gradleak run toy")
    run(trials(), other, "gradleak run tables")
    assert [len(r.read()) for r in (records, other)] == [5, 10]
    assert other.facts()["command"] == "gradleak run tables"
    assert Records.of(records.folder, "tables", "quick")[0].name == records.name
    both = records.export(tmp_path / "shared")
    assert both.facts()["command"] == "gradleak run toy && gradleak run tables"
    pd.testing.assert_frame_equal(both.read(), other.read())
    other.forget()
    pd.testing.assert_frame_equal(records.export(tmp_path / "own").read(), records.read())
    # The other chapter has not run here, and its rows are not lost.
    kept = records.export(tmp_path / "shared")
    assert set(kept.read().id) == set(both.read().id)
    assert kept.facts()["command"] == both.facts()["command"]
    assert kept.facts()["rows"] == 10


def test_what_was_stopped_takes_no_row_from_its_export(records, tmp_path):
    run(trials(), records, "gradleak run toy")
    records.export(tmp_path)
    records.forget()
    run(trials(weights=[0.1]), records, "gradleak run toy")
    assert len(records.export(tmp_path, whole=False).read()) == 10
    assert len(records.export(tmp_path).read()) == 5


def test_other_committed_records_are_of_the_same_kind(tmp_path):
    for name in ("toy-quick-digits", "toy-paper-digits", "toy-paper-digits-accuracy", "toys-x-y"):
        (tmp_path / f"{name}.csv").write_text("id\n")
    own = Records(tmp_path, "toy-quick-digits", tmp_path)
    assert [e.name for e in own.others()] == ["toy-paper-digits"]
    assert [e.name for e in own.beside("accuracy").others()] == ["toy-paper-digits-accuracy"]
    assert own.beside("answers").others() == []
    assert Records(tmp_path, "toy-quick-digits").others() == []


LABELS = st.dictionaries(
    st.text(min_size=1).filter(lambda name: name.strip() and name not in TAKEN),
    st.one_of(st.text(), st.sampled_from(["None", "NA", "", "01", "1", "1e5", "true"]),
              st.integers(-99, 99), st.floats(allow_nan=False), st.booleans()),
    max_size=3,
)  # fmt: skip


@settings(max_examples=15)
@hypothesis.given(st.lists(LABELS, min_size=1, max_size=4))
def test_labels_come_back_as_what_they_were(labels):
    """From the database and from the export, so that no groups merge."""
    with TemporaryDirectory() as folder:
        records = Records(Path(folder), "toy-quick")
        asked = [(f"{k}", {**each, "index": k}) for k, each in enumerate(labels)]
        records.ask(asked, "")
        records.add({id: {"seconds": 0.0} for id, _ in asked}, {}, HERE)
        tables = (records.read(), records.export(Path(folder, "out")).read())
        for table in tables:
            for each, (_, row) in zip(labels, table.iterrows(), strict=True):
                found = {k: (isinstance(v, str), v) for k, v in row.items() if k in each}
                assert found == {k: (isinstance(v, str), v) for k, v in each.items()}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        *(({name: "x"}, f"or told: {name}") for name in ("id", "index", "psnr", "seed",
          "ssim_x", "seconds", "dataset", "belief", "prior", "optimizer", "true_defense",
          "transform")),
        ({" ": 1}, "not blank"), ({3: 1}, "not blank"), ("defense", "a dictionary"),
        *(({"k": value}, "the label k is") for value in (None, np.nan, [1], (1,), {}, np.int64(3),
          torch.tensor(1.0), 2**64, 10**5000, object(), b"x", 1j)),
    ],
)  # fmt: skip
def test_labels_that_no_table_could_hold_are_refused_before_anything_runs(labels, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(trials()[0], labels=labels)


def test_what_functions_return_is_called_otherwise_than_their_labels(records):
    for labels in ({"id": 1}, {"seconds": 1}, {"n": None}):
        with pytest.raises(ValueError, match="label"):
            runs.measured([(labels, (), lambda: pytest.fail("ran"))], records)
    with pytest.raises(ValueError, match="called as a label"):
        runs.measured([({"n": 1}, (), lambda: {"n": 2})], records)


@pytest.fixture
def published(records, tmp_path):
    """A small export, with pictures."""
    run(trials(weights=[1.0]), records, "gradleak run toy")
    return records.export(tmp_path / "published")


def damaged(whole: bytes) -> list[bytes]:
    """Cut at many bytes, emptied, of another encoding, garbage."""
    cuts = [whole[:n] for n in np.linspace(0, len(whole) - 1, 40).astype(int)]
    return [*cuts, b"\xff\xfe" + whole, whole.decode("latin1").encode("utf-16"), b"\x00" * 99,
            bytes(range(256)) * 4, b"\x80\x04}.", b"{}", b"[1", b"null", whole * 2]  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".json", ".npz"])
def test_a_damaged_export_is_named_with_the_cure(published, suffix):
    path = published.path.with_suffix(suffix)
    read = {".csv": published.read, ".json": published.facts, ".npz": published.pictures}[suffix]
    whole, expected = path.read_bytes(), read()
    for content in damaged(whole):
        path.write_bytes(content)
        # What stands before an archive, and whether facts end their line, makes no difference.
        if content in {".npz": (b"\xff\xfe" + whole, whole * 2), ".json": (whole[:-1],)}.get(
            suffix, ()
        ):
            assert read().keys() == expected.keys()
            continue
        with pytest.raises(DamagedError) as error:
            read()
        assert str(path) in str(error.value)
        assert "git checkout" in str(error.value)
        assert "pickle" not in str(error.value)
    path.unlink()
    path.mkdir()
    with pytest.raises(DamagedError, match="Is a directory"):
        read()


def test_pictures_are_never_unpickled(published):
    path = published.path.with_suffix(".npz")
    for content in (np.array([print], object), np.zeros((1, 2, 2)), np.zeros(3, np.uint8)):
        np.savez(path, a=content)
        with pytest.raises(DamagedError, match="fetch it again"):
            published.pictures()


def test_rows_that_were_doubled_or_lost_or_tell_two_things_are_noticed(
    published, records, tmp_path
):
    lines, facts = published.path.read_text().splitlines(keepends=True), published.facts()
    other = lines[2].replace(lines[2][:16], lines[1][:16])
    for rows in (lines[:-1], [*lines, lines[3]], lines[:1], [*lines, "x" + lines[3]]):
        published.path.write_text("".join(rows))
        with pytest.raises(DamagedError, match=f"{len(rows) - 1} rows and its facts tell of 5"):
            published.read()
    for rows, message in (
        ([*lines, lines[3]], "twice"),
        ([*lines, other], "two things of the row"),
    ):
        published.path.write_text("".join(rows))
        published.path.with_suffix(".json").write_text(json.dumps({**facts, "rows": 6}))
        fresh = Records(tmp_path / "fresh", records.name, published.path.parent)
        with pytest.raises(DamagedError, match=message):
            run(trials(weights=[1.0]), fresh)
    published.path.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match=r"\.json is not there.*git checkout"):
        published.facts()


def attempt(records):
    """The table of a run, or what is wrong."""
    try:
        return run(trials(weights=[1.0]), records, "a command")
    except DamagedError as error:
        return str(error)


def test_a_damaged_database_is_named_with_the_cure(records, tmp_path):
    first = run(trials(weights=[1.0]), records, "a command")
    with sqlite3.connect(records.folder / "records.sqlite") as db:
        db.execute("VACUUM INTO ?", [str(tmp_path / "whole")])
    whole = (tmp_path / "whole").read_bytes()
    for k, content in enumerate([*damaged(whole)[1:], b"not a database" * 99]):
        own = Records(tmp_path / f"damaged{k}", records.name)
        own.folder.mkdir()
        (own.folder / "records.sqlite").write_bytes(content)
        found = attempt(own)
        if isinstance(found, str):
            assert f"{own.folder}/records.sqlite" in found
            assert "run the command again" in found
        else:
            pd.testing.assert_frame_equal(comparable(found), comparable(first))
    for place in (tmp_path / "whole", tmp_path / "whole" / "below"):
        with pytest.raises(OSError, match=r"records cannot be kept in .*name a folder"):
            run(trials(), Records(place, "toy"))
    (tmp_path / "folder" / "records.sqlite").mkdir(parents=True)
    with pytest.raises(OSError, match=r"records cannot be kept in .*name a folder"):
        run(trials(), Records(tmp_path / "folder", "toy"))


@pytest.fixture
def as_somebody(tmp_path):
    """Call it to have the rights of a user who is not root."""
    me = os.getuid()
    yield lambda: os.setresuid(me or 65534, me or 65534, me)
    os.setresuid(me, me, me)


@pytest.mark.slow
@pytest.mark.parametrize("written_back", [True, False])
def test_a_finished_run_in_a_read_only_folder_can_be_read(as_somebody, tmp_path, written_back):
    source = Records(tmp_path / "made", "toy-quick-digits")
    first = run(trials(), source, "a command")
    with TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        folder = Path(open_to_all, "results")
        if written_back:
            folder.mkdir()
            with sqlite3.connect(source.folder / "records.sqlite") as db:
                db.execute("VACUUM INTO ?", [str(folder / "records.sqlite")])
        else:  # the last rows lie in the log beside it
            shutil.copytree(source.folder, folder)
        for path in (*folder.iterdir(), folder):
            path.chmod(0o555)
        held, before = Records(folder, source.name), sorted(folder.iterdir())
        as_somebody()
        pd.testing.assert_frame_equal(run(trials(), held, "a command"), first)
        pd.testing.assert_frame_equal(held.read(), first)
        assert held.facts()["rows"] == 10
        assert len(held.pictures(first.id)) == 4
        with pytest.raises(OSError, match=r"records cannot be kept in .*-p results=FOLDER"):
            run(trials(weights=[7.0]), held, "a command")
        assert sorted(folder.iterdir()) == before
        os.setresuid(*[os.getresuid()[2]] * 3)
        folder.chmod(0o755)


@pytest.mark.parametrize("name", ["", "a/b", "a\0b", "x" * 200, "two\nlines", None, 3])
def test_names_of_records_are_those_of_files(tmp_path, name):
    with pytest.raises(ValueError, match="name must be"):
        Records(tmp_path, name)
    assert Records(tmp_path, "x" * 199).name
    held = Records(str(tmp_path), "some", str(tmp_path / "published"))
    assert (held.folder, held.committed) == (tmp_path, tmp_path / "published")
    assert held.exported(str(tmp_path)).path == tmp_path / "some.csv"
    for other in ({"committed": 3}, {"chapter": 3}, {"folder": None}):
        with pytest.raises(ValueError, match=f"{next(iter(other))} must be"):
            dataclasses.replace(held, **other)


NOTHING = ["[]", "null", None, "3", '"text"', "{"]


@pytest.mark.parametrize(
    ("cell", "held"),
    [*(("rows SET found", held) for held in [*NOTHING, "{}", '{"seconds": "a"}']),
     *(("asked SET told", held) for held in NOTHING)],
)  # fmt: skip
def test_a_row_that_holds_nothing_is_named_with_its_file(tmp_path, cell, held):
    records = Records(tmp_path, "some")
    records.ask([("a", {"index": 0})], "")
    records.add({"a": {"seconds": 0.0}}, {}, HERE)
    with contextlib.closing(sqlite3.connect(tmp_path / "records.sqlite")) as db, db:
        db.execute(f"UPDATE {cell} = ?", [held])
    for door in (records.read, records.facts, lambda: records.export(tmp_path)):
        with pytest.raises(DamagedError, match=r"records\.sqlite is no database of records"):
            door()


@pytest.mark.parametrize(
    "cell", ["shape = NULL", "shape = '[]'", "pixels = NULL", "pixels = x'00'"]
)
def test_a_picture_that_is_none_is_named_with_its_file(tmp_path, cell):
    records = Records(tmp_path, "some")
    records.add({}, {"a": np.zeros((1, 2, 2), np.uint8)}, HERE)
    with contextlib.closing(sqlite3.connect(tmp_path / "records.sqlite")) as db, db:
        db.execute(f"UPDATE pictures SET {cell}")
    with pytest.raises(DamagedError, match=r"records\.sqlite is no database of records"):
        records.pictures(["a"])


def test_an_export_without_names_is_damaged_where_its_rows_are_wanted(tmp_path):
    records = Records(tmp_path, "some")
    records.ask([("a", {"index": 0})], "a command")
    records.add({"a": {"seconds": 0.0}}, {}, HERE)
    export = records.export(tmp_path)
    export.write(export.read().drop(columns="id"), export.facts())
    fresh = Records(tmp_path / "fresh", "some", tmp_path)
    for door in (lambda: fresh.missing(["a"]), lambda: records.export(tmp_path, whole=False)):
        with pytest.raises(DamagedError, match=r"some\.csv does not name its rows"):
            door()
    assert records.export(tmp_path).read().id.tolist() == ["a"]  # anew


@pytest.mark.parametrize(
    "schema",
    ["CREATE TABLE rows (id TEXT)", "CREATE VIEW rows AS SELECT 1 AS id, 2 AS found, 3 AS made",
     "CREATE TABLE asked (name TEXT, told TEXT)", "CREATE VIEW commands AS SELECT 1 AS name",
     "CREATE TABLE x (a); CREATE INDEX pictures ON x (a)"],
)  # fmt: skip
def test_tables_of_others_are_none_of_ours(tmp_path, schema):
    with contextlib.closing(sqlite3.connect(tmp_path / "records.sqlite")) as db, db:
        db.executescript(schema)
    with pytest.raises(DamagedError, match=r"records\.sqlite is no database of records"):
        Records(tmp_path, "some").ask([("a", {"index": 0})], "")
