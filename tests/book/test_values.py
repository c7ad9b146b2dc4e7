"""Parameters of a chapter, and which values they take."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import REPO, edit

from gradleak import book
from gradleak.book.values import _allow, _checked, _read, assignments, check


def test_parameters_have_type_default_and_help(clone):
    parameters = book.parameters(book.find("toy", clone))
    assert parameters["steps"] == book.Parameter("steps", 3, "int", "number of steps")
    assert parameters["scales"].default == [0.1, 0.2]


def test_chapter_without_parameters_cell(clone):
    edit(clone / "notebooks" / "01_toy.py", ' tags=["parameters"]', "")
    with pytest.raises(book.BookError, match="no cell tagged `parameters`"):
        book.run("toy")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("steps=12", 12),
        ("defense=laplace", "laplace"),
        ("defense=0.1", "0.1"),
        ("scales=[1, 0.5]", [1, 0.5]),
        ("results=", ""),
        ("profile = quick", "quick"),
    ],
)
def test_values_are_read_as_the_type_of_their_parameter(clone, text, value):
    (read_value,) = assignments(book.find("toy", clone), [text]).values()
    assert read_value == value


def test_floats_and_optional_values(clone):
    new = "rate: float = 1.0\nlimit: int | None = None"
    edit(clone / "notebooks" / "01_toy.py", 'defense = "gaussian"', new)
    edit(clone / "notebooks" / "01_toy.py", "{defense}", "{rate}")
    chapter = book.find("toy", clone)
    assert assignments(chapter, ["rate=1e-3"]) == {"rate": 0.001}
    assert assignments(chapter, ["rate=2", "limit=7"]) == {"rate": 2.0, "limit": 7}
    assert assignments(chapter, ["limit=null"]) == {"limit": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz=5", "unknown parameter of toy 'stepz'.*'steps'"),
        ("steps=many", "steps wants type int, such as 3"),
        ("scales=0.1", "scales wants type list"),
        ("steps", "name=value"),
    ],
)
def test_wrong_values_are_refused(clone, text, message):
    with pytest.raises(book.BookError, match=message):
        assignments(book.find("toy", clone), [text])


DECLARED = """\
defense = "laplace"  # shown first
# one of gaussian, laplace or learned
rate = 0.5  # share of hidden entries, in [0, 1)
strength = 0.1  # above 0
count: int = 0  # images, at least 2; 0: the profile's
sizes: list[int] = []  # of networks; empty: the profile's
levels = [0.1, 0.2]  # at least 0.1
quick = False  # less of all
network = ""  # one of cnn or mlp; empty: the profile's
limit = (
    1  # as a formatter folds it, at least 1
)
"""


@pytest.fixture
def declared(clone):
    script = clone / "notebooks" / "01_toy.py"
    edit(script, 'defense = "gaussian"  # gaussian, laplace | none\n', DECLARED)
    return book.find("toy", clone)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"defense": "laplac"}, "unknown defense 'laplac'; did you mean 'laplace'"),
        ({"defense": ""}, "unknown defense '' .one of: gaussian, laplace, learned"),
        ({"rate": 1}, r"rate must be in \[0, 1\), got 1.0"),
        ({"rate": -0.1}, r"rate must be in \[0, 1\), got -0.1"),
        ({"rate": float("nan")}, "rate must be in"),
        ({"strength": 0.0}, "strength must be above 0, got 0"),
        ({"strength": float("inf")}, "strength must be above 0, got inf"),
        ({"strength": "0.1"}, "strength wants type float, such as 0.1; not '0.1'"),
        ({"count": 1}, "count must be at least 2, got 1"),
        ({"steps": -1}, "steps must be at least 0, got -1"),
        ({"steps": True}, "steps wants type int"),
        ({"steps": 1.0}, "steps wants type int"),
        ({"sizes": [1, 0.5]}, r"sizes wants type list\[int\]; not \[1, 0.5\]"),
        ({"sizes": [1, -5]}, "sizes must be at least 0, got -5"),
        ({"sizes": 3}, "sizes wants type list"),
        ({"levels": [1, 0.05]}, "levels must be at least 0.1, got 0.05"),
        ({"quick": 1}, "quick wants type bool"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
    ],
)
def test_what_the_comment_does_not_allow_is_refused(declared, given, message):
    with pytest.raises(book.BookError, match=message):
        book.run("toy", parameters=given, home=declared.root)
    assert not (declared.root / "_build").exists()


def test_what_the_comment_allows_is_taken(declared):
    given = {"defense": "learned", "rate": 0, "count": 2, "sizes": [0, 8], "levels": [1], "seed": 7}
    found = check(declared, given)
    assert found == given
    assert isinstance(found["rate"], float)
    assert isinstance(found["levels"][0], float)
    every = book.parameters(declared)
    assert every["defense"].help == "shown first; one of gaussian, laplace or learned"
    assert check(declared, {name: p.default for name, p in every.items()})


def test_defaults_of_the_real_chapters_are_what_their_comments_allow():
    """Or empty: so no comment says "one of" of something else."""
    for chapter in book.chapters(REPO):
        for parameter in book.parameters(chapter).values():
            if parameter.default:
                _allow(parameter, parameter.default)


FUZZ = st.one_of(
    st.text(), st.text("[]{}(),:'\"0123456789.eE+-_ &*!|>%@`#~nulltruefalsian", max_size=40),
    st.tuples(st.sampled_from("[{(-+~"), st.integers(1, 400)).map(lambda t: t[0] * t[1]),
    st.sampled_from(["1e999", "-1e999", "nan", ".nan", ".inf", "-.inf", "9" * 5000, "9" * 900,
                     "0x" + "f" * 900, "1_0", "0o9", "2001-99-99", "2001-01-01", "!!python/none x",
                     "!!int a", "!!binary x", "!!timestamp x", "? [a]", "{[1]: 2}", "{{}: 1}", "*a",
                     "&a [*a]", "<<: 1", "{<<: 1}", "1:99:99", "=", "\0", "\ud800", "\\N{x}",
                     "'\\x'", "99999999", "1" + "0" * 20, "True", "1j", "b'x'", "{1}", "-", "--1"]),
)  # fmt: skip


@pytest.fixture(scope="module")
def chapters_at_hand():
    return [(chapter, book.parameters(chapter)) for chapter in book.chapters(REPO)]


def outcome(parameter, text):
    """The value that is read, or why it is refused."""
    try:
        return _checked(parameter, _read(parameter, text)), ""
    except book.BookError as error:
        return None, error.message


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(FUZZ, st.integers(0, 10**6))
def test_whatever_is_typed_is_taken_or_refused_with_a_word(chapters_at_hand, text, pick):
    every = [p for _, known in chapters_at_hand for p in known.values()]
    parameter = every[pick % len(every)]
    value, message = outcome(parameter, text)
    if message:
        assert len(message) < 400
    elif type(value) in (int, float) and value != parameter.default:
        assert 0 <= value < math.inf


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate=1e999", r"rate must be in \[0, 1\), got inf"),
        ("rate=nan", "rate wants type float"),
        ("rate=.nan", r"rate must be in \[0, 1\), got nan"),
        ("rate=2", r"rate must be in \[0, 1\), got 2.0"),
        ("seed=-1", "seed must be at least 0, got -1"),
        ("steps=99999999", "steps must be at least 0 and below 10,000,000, got 99999999"),
        ("sizes=[5, 100000000]", "sizes must be at least 0 and below 10,000,000"),
        ("steps=" + "9" * 900, "steps must be at least 0 and below"),
        ("steps=" + "9" * 5000, "steps is given 5000 characters"),
        ("steps=" + "[" * 200, "steps wants type int"),
        ("sizes=" + "[" * 900, "sizes wants type list"),
        ("steps=1.5", "steps wants type int"),
        ("quick=1", "quick wants type bool"),
        ("x" * 5000, "wants name=value"),
    ],
    ids=lambda text: text[:20],
)
def test_what_no_chapter_can_take_is_refused_before_its_kernel_starts(declared, text, message):
    with pytest.raises(book.BookError, match=message) as error:
        assignments(declared, [text])
    assert len(error.value.message) < 400
    assert assignments(declared, [f"seed={10**12}"]) == {"seed": 10**12}
