"""`make show`: a line is ok only after a measurement that met its bar."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType

from rich.console import Console

from scripts import show


def module_with(*functions: object) -> ModuleType:
    module = ModuleType("planted")
    for number, function in enumerate(functions):
        setattr(module, f"line_{number}", function)
    return module


@show.line("a good line", bar="1")
def good(out: Path) -> show.Shown:
    picture = out / "picture.html"
    picture.write_text("seen", encoding="utf-8")
    return show.Shown("1 [of 1]", True, (picture,))


@show.line("a short line", bar="2")
def short(out: Path) -> show.Shown:
    return show.Shown("1", False)


@show.line("a broken line", bar="3")
def broken(out: Path) -> show.Shown:
    raise LookupError("nothing to measure")


def test_short_and_broken_lines_are_counted_and_pictures_named(tmp_path: Path) -> None:
    text = io.StringIO()
    lines = show.lines_of(module_with(good, short, broken))
    count = show.run(lines, tmp_path, Console(file=text, width=200))
    printed = text.getvalue()
    assert count == 2
    assert "LookupError: nothing to measure" in printed
    assert "1 [of 1]" in printed
    assert str(tmp_path / "picture.html") in printed
    assert "1 of 3 lines are ok, 2 short" in printed


def test_issues_are_found_by_their_files() -> None:
    assert "house" in show.issues()


def test_lines_keep_the_order_of_the_file() -> None:
    assert [item.text for item in show.lines_of(module_with(short, good))] == ["a short line", "a good line"]


def test_the_unseen_architecture_is_llama_under_other_names() -> None:
    import torch

    from tests.show.unseen import renamed_llama
    from tests.tiny import TINY

    known = TINY["llama"]()
    strange = renamed_llama(known)
    ids = torch.tensor([[5, 9, 3, 7, 4], [0, 0, 8, 2, 6]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    with torch.no_grad():
        same = [m(input_ids=ids, attention_mask=mask).logits[:, 2:] for m in (known, strange)]
    torch.testing.assert_close(*same, rtol=0, atol=1e-6)
    assert not {name.split(".")[-1] for name, _ in known.named_modules()} & {
        name.split(".")[-1] for name, _ in strange.named_modules() if name and not name[-1].isdigit()
    } - {""}
