"""A text matches a pattern as a whole, by either engine, and in bounded time by one."""

from __future__ import annotations

import sys

import pytest

from snakepit_mp.values import patterns


class FakeRe2:
    """The part of ``re2`` that is used, where it is not installed."""

    class error(Exception):  # noqa: N801  as re2 names it
        pass

    class Options:
        log_errors = True

    def __init__(self, reason: object = None) -> None:
        self.reason = reason

    def compile(self, pattern: str, options: Options) -> FakeRe2:
        assert not options.log_errors
        if self.reason is not None:
            raise self.error(self.reason)
        return self

    def fullmatch(self, text: str) -> str | None:
        return text if text == "as RE2 says" else None


@pytest.fixture(params=["re", "re2"])
def engine(request, monkeypatch):
    if request.param == "re":
        monkeypatch.setitem(sys.modules, "re2", None)
    else:
        pytest.importorskip("re2", reason="google-re2 is not installed")


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("", [""], ["a"]),
        ("a|ab", ["a", "ab"], ["abc", "xa"]),
        ("a.", ["ab", "a\U0001f40d"], ["a\n", "a"]),
        ("a$", ["a"], ["a\n"]),
        (r"\d+", ["12"], ["١٢", ""]),
        (r"\w*", ["a_1"], ["é"]),
        (r"(?i)ab", ["aB"], ["ac"]),
        (r"[^a]*", ["é\0"], ["\ud800", "ba"]),
        ("[é-ü]+", ["éü"], ["a"]),
    ],
)
def test_the_whole_text_matches(engine, pattern, yes, no):
    matches = patterns.matcher(pattern)
    assert [text for text in yes if not matches(text)] == []
    assert [text for text in no if matches(text)] == []


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "."),
        ("[", "."),
        ("*", "."),
        ("(?u)a", "."),
        ("a" * 1001, "it has 1001 characters, at most 1000 allowed"),
        ("\ud800", "it has lone surrogates"),
    ],
)
def test_no_pattern(engine, pattern, reason, capfd):
    with pytest.raises(patterns.PatternError, match=reason):
        patterns.matcher(pattern)
    assert capfd.readouterr().err == ""


def test_re2_takes_linear_time():
    pytest.importorskip("re2", reason="google-re2 is not installed")
    assert not patterns.matcher("(a|aa)+$")("a" * 5_000 + "b")


def test_re2_is_asked_where_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "re2", FakeRe2())
    matches = patterns.matcher("a+")
    assert matches("as RE2 says")
    assert not matches("aa")


@pytest.mark.parametrize("reason", [b"invalid perl operator: (?=", "invalid perl operator: (?="])
def test_what_re2_refuses_is_refused(monkeypatch, reason):
    monkeypatch.setitem(sys.modules, "re2", FakeRe2(reason))
    with pytest.raises(patterns.PatternError, match=r"RE2 says invalid perl operator: \(\?="):
        patterns.matcher("(?=a)")
