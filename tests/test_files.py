"""Files: whole or not at all, and named where they cannot be read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradleak.files import DamagedError, sound, whole


@given(st.text())
def test_the_name_and_the_cure_are_said_in_one_line_whatever_the_reader_says(words):
    with pytest.raises(DamagedError) as error:
        raised(ValueError(words))
    said = str(error.value)
    assert said.startswith("a cannot be read as facts (")
    assert said.endswith("): cure")
    assert len(said.splitlines()) == 1


def read(path):
    with sound(path, "facts", "cure"):
        json.loads(path.read_text("utf-8"))


def raised(error, *errors):
    with sound("a", "facts", "cure", *errors):
        raise error


def test_what_goes_wrong_with_a_file_is_told(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut").write_text('{"a": ')
    (tmp_path / "other").write_bytes("ü".encode("utf-16"))
    for name, words in {"folder": "Is a directory", "cut": "Expecting", "other": "utf-8"}.items():
        with pytest.raises(DamagedError, match=f"{name} cannot be read as facts .*{words}.*: cure"):
            read(tmp_path / name)
    for path in (tmp_path / "none", tmp_path / "cut" / "below"):
        with pytest.raises(FileNotFoundError, match="is not there: cure"):
            read(path)
    with pytest.raises(KeyError):
        raised(KeyError("a bug"))
    with pytest.raises(DamagedError, match="what its reader says"):
        raised(KeyError("what its reader says"), KeyError)


def full():
    raise OSError("the disk is full")


def test_what_is_stopped_half_way_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "new" / "file"

    def write(text, stop):
        with whole(path) as scratch:
            scratch.write_text(text)
            stop()

    write("first", lambda: None)
    write("second", lambda: None)
    with pytest.raises(OSError, match="full"):
        write("thi", full)
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a" * 300, "folder", "file/below"])
def test_a_file_that_cannot_be_written_is_named_and_others_are_not_blamed_on_it(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    said = f"{name} cannot be written .*: name a file in a folder of"
    with pytest.raises(OSError, match=said), whole(tmp_path / name) as path:
        path.write_text("text")
    with pytest.raises(FileNotFoundError) as error, whole(tmp_path / "ours"):
        (tmp_path / "another").read_text()
    assert error.value.filename == str(tmp_path / "another")
    assert {p.name for p in tmp_path.iterdir()} == {"folder", "file"}
