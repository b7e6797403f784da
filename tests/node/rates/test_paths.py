"""Places in JSON documents."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.node.rates.exact import AnswerError
from isthmus.node.rates.paths import follow, parse_path, path_text


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("data", ("data",)),
        ("$.result.XXBTZUSD.c[0]", ("result", "XXBTZUSD", "c", 0)),
        ("$['a.b'][3]", ("a.b", 3)),
        ('x["y z"]', ("x", "y z")),
        ("[0].a-b", (0, "a-b")),
        ("['-a'].b", ("-a", "b")),
        ("""["it's"]['']['Í']""", ("it's", "", "Í")),
    ],
)
def test_paths_are_names_and_places(text: str, path: tuple[str | int, ...]) -> None:
    assert parse_path(text) == path
    assert parse_path(path_text(path)) == path


@pytest.mark.parametrize(
    "text", ["", "$", ".a", "$..a", "a..b", "a.", "a[", "a[-1]", "a[*]", "a[?(@)]", "a b", "a['x", "a.0", "x" * 600]
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_path(text)


def test_what_is_not_there_is_told_with_its_place() -> None:
    document = {"a": [{"b": "1"}], "n": None, "s": "text"}
    assert follow(document, ("a", 0, "b")) == "1"
    for path in (("x",), ("a", 1), ("a", "0"), ("a", 0, "c"), (0,), ("s", 0), ("n", "x"), ("a", 0, "b", 0)):
        with pytest.raises(AnswerError, match=r"nothing at \$"):
            follow(document, path)


@given(st.text(max_size=40))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    """P-9."""
    try:
        path = parse_path(text)
    except ValueError:
        return
    assert parse_path(path_text(path)) == path
