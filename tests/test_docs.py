"""The manual: every method has its paper, every public name its place, and what the README says runs."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import pellucid
from pellucid.core.catalogue import Entry, entries
from scripts import check_site, make_method_pages, source

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "methods" not in path.relative_to(ROOT / "docs").parts)
METHODS = [entry for entry in entries() if entry.kind != "view"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAPER = re.compile(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d+/\S+|[A-Z]\w+.* \d{4}")


@cache
def written() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in (README, *PAGES))


@pytest.mark.parametrize("entry", METHODS, ids=lambda entry: entry.name)
def test_every_method_names_its_paper(entry: Entry) -> None:
    text = make_method_pages.docstring(entry)
    assert PAPER.search(entry.paper), "the decorator names no paper"
    assert entry.paper in text or re.search(r"[A-Z]\w+.*?\d{4}", text), "the docstring names no source"


@pytest.mark.parametrize("entry", METHODS, ids=lambda entry: entry.name)
def test_every_parameter_is_described(entry: Entry) -> None:
    assert [item["name"] for item in entry.parameters if not item["doc"]] == []


@pytest.mark.parametrize("name", pellucid.__all__)
def test_every_public_name_is_in_the_manual(name: str) -> None:
    assert re.search(rf"pellucid\.{name}\b|`{name}`", written())


def test_method_pages_say_what_the_source_says(tmp_path: Path) -> None:
    make_method_pages.main(str(tmp_path))
    index = (tmp_path / "index.md").read_text(encoding="utf-8")
    for entry in METHODS:
        page = (tmp_path / f"{entry.name}.md").read_text(encoding="utf-8")
        assert f"({entry.name}.md)" in index
        assert entry.summary in " ".join(page.replace("\\*", "*").split())
        assert all(f"`{item['name']}`" in page for item in entry.parameters)
    (tmp_path / "gone.md").write_text("an old page", encoding="utf-8")
    make_method_pages.main(str(tmp_path))
    assert not (tmp_path / "gone.md").exists()


def test_docstring_sections_become_lists() -> None:
    text = "Do it.\n\nMore.\n\nArgs:\n    x: a number.\n\nRaises:\n    InputError: It is\n        too large.\n"
    body, sections = make_method_pages.split(text)
    assert body == "Do it.\n\nMore."
    assert make_method_pages.plain("a * b of `c * d`") == "a \\* b of `c * d`"
    assert sections["Raises"].startswith("- `InputError`: It is\n")


def test_links_between_pages_lead_somewhere() -> None:
    made = {f"{entry.name}.md" for entry in METHODS} | {"index.md"}
    broken = []
    for path in (README, ROOT / "CONTRIBUTING.md", *PAGES):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            place = (path.parent / target).resolve()
            generated = place.parent == (ROOT / "docs" / "methods").resolve() and place.name in made
            if not (generated or place.exists()):
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert not broken


def test_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for path in (README, ROOT / "CONTRIBUTING.md"):
        text = path.read_text(encoding="utf-8")
        commands = re.findall(r"^make ([a-z -]+?)(?:\s+#.*)?$", text, re.MULTILINE)
        commands += re.findall(r"`make ([a-z-]+)[` ]", text)
        assert commands
        for command in commands:
            assert set(command.split()) <= targets, f"{path.name}: make {command}"


def test_commands_of_the_manual_exist() -> None:
    from typer.main import get_command

    from pellucid.cli.app import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    blocks = "\n".join(code for language, code in BLOCK.findall(written()) if not language)
    used = set(re.findall(r"^pellucid ([a-z]+)", blocks, re.MULTILINE)) | set(
        re.findall(r"`pellucid ([a-z]+)", written())
    )
    assert used
    assert used <= known


def test_python_in_the_manual_is_python() -> None:
    for path in (README, *PAGES):
        for language, code in BLOCK.findall(path.read_text(encoding="utf-8")):
            if language == "python":
                ast.parse(code, filename=str(path))


def test_the_readme_example_runs() -> None:
    code = next(code for language, code in BLOCK.findall(README.read_text(encoding="utf-8")) if language == "python")
    assert sum(bool(text.strip()) for text in code.splitlines()) <= 5
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout


def test_readme_imports_only_what_is_installed_by_default() -> None:
    for language, code in BLOCK.findall(README.read_text(encoding="utf-8")):
        if language == "python":
            names = [
                alias.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import) for alias in node.names
            ]
            assert names == ["pellucid"]


def test_the_order_of_layers_is_the_one_in_the_manual() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?) \|", text, re.MULTILINE)
    names = [name.removesuffix(".py") for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert tuple(names) == source.LAYERS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("script.html", '<script src="https://cdn.example.org/x.js"></script>'),
        ("style.html", '<link rel="stylesheet" href="//fonts.example.org/x.css">'),
        ("image.html", '<img src="http://example.org/x.png">'),
        ("inline.html", "<style>a{background:url(https://example.org/x.png)}</style>"),
        ("sheet.css", '@import "https://fonts.example.org/x.css";'),
        ("diagram.html", '<pre class="mermaid">graph</pre>'),
    ],
)
def test_a_page_that_loads_from_elsewhere_is_found(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert check_site.foreign(tmp_path)


def test_links_that_a_reader_clicks_are_free(tmp_path: Path) -> None:
    page = '<a href="https://arxiv.org">paper</a><link rel="canonical" href="https://example.org"><img src="a.png">'
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    assert check_site.foreign(tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed")
def test_the_manual_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = subprocess.run(["make", "docs"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
