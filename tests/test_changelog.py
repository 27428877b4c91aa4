"""Changelog fragments: one sentence each, and the changelog built from them."""

from __future__ import annotations

import pytest

from scripts import changelog


def test_every_fragment_is_one_short_sentence() -> None:
    assert [p for name, text in changelog.fragments().items() for p in changelog.problems(name, text)] == []


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("readme.md", "Something new.", "not called"),
        ("2-x.new.md", "Something new.", "has the kind 'new'"),
        ("2-x.added.md", "Something new", "full stop"),
        ("2-x.added.md", "One thing. Another thing.", "one sentence"),
        ("2-x.added.md", "One\nthing.", "one line"),
        ("2-x.added.md", "word " * 25 + "word.", "26 words"),
    ],
)
def test_a_bad_fragment_is_refused(name: str, text: str, why: str) -> None:
    assert why in " ".join(changelog.problems(name, text))


def test_the_changelog_sorts_by_kind_then_issue() -> None:
    texts = {"10.added.md": "Ten.\n", "2-b.added.md": "Two b.\n", "2-a.fixed.md": "Two a.\n"}
    built = changelog.build(texts, "1.2")
    places = [built.index(part) for part in ("## 1.2", "### Added", "- Two b.", "- Ten.", "### Fixed", "- Two a.")]
    assert places == sorted(places)


def test_building_again_changes_nothing_and_keeps_older_versions() -> None:
    old = changelog.build({"1.added.md": "Old.\n"}, "1.1")
    new = changelog.build({"2.added.md": "New.\n"}, "1.2", old)
    assert new.index("- New.") < new.index("## 1.1") < new.index("- Old.")
    assert changelog.build({"2.added.md": "New.\n"}, "1.2", new) == new
