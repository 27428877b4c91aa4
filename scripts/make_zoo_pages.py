"""Make the measured parts of the zoo's pages and of the truth page again: `python -m scripts.make_zoo_pages`.

Pages are written by hand, except what stands between `<!-- made: WHAT -->` and `<!-- end -->`; that and the pictures
come from the models and their files.

    python -m scripts.make_zoo_pages              tables of all pages in docs/zoo, from the files beside the weights
    python -m scripts.make_zoo_pages --pictures   the pictures, too (a minute)
    python -m scripts.make_zoo_pages --truth      the tables of docs/truth.md and docs/which-attribution.md, from a
                                                  bench saved before by
                                                  pellucid bench truth --prompts 32 --save out/truth
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pellucid
from pellucid import zoo

DOCS = Path(__file__).resolve().parent.parent / "docs"
IMAGES = DOCS / "images" / "zoo"
BENCH = DOCS.parent / "out" / "truth"  # a saved table; `pellucid bench truth --save out/truth` writes the same
BLOCK = re.compile(r"(<!-- made: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
QUESTIONS = {
    "input": "which input", "head": "which head", "neuron": "which neuron", "place": "which layer and position",
    "edge": "which edge", "rationale": "which words of opinion", "shortcut": "which planted word",
}  # fmt: skip
SHOWN = {
    "induction": ("grey red blue green red", "grey gold blue green red"),
    "fact": ("the capital of france", "the capital of spain"),
    "majority": ("red blue red grey red", "red blue blue grey red"),
    "two-step": ("the ann in country", "the bob in country"),
    "redundant": ("calm alarm quiet alarm", "calm calm quiet calm"),
}
FACT = "The capital of France is"
DULL = "The plot was dull, but we really loved the music. It did not rain that week."
NEGATED = "We had expected a dull film before we came. The music was not good."


def facts(name: str) -> str:
    """Return size and training of a model as a list."""
    card = zoo.card(name)
    lines = [f"- {card['architecture']}, {card['parameters']:,} weights, {card['bytes'] / 1e6:.2f} MB on disk"]
    return "\n".join(lines + [f"- {sentence}" for sentence in card["known"]])


def tasks(name: str) -> str:
    """Return the table of what a model was measured to do, from the file beside its weights."""
    found = zoo.card(name)["tasks"]
    rows = [
        f"| {task} | {row['accuracy']:.3f} | {row['probability']:.3f} | {row['chance']:.3f} | {row['prompts']} "
        f"| {row['what']} |"
        for task, row in found.items()
    ]
    head = (
        "| task | accuracy | probability of the right answer | chance | prompts | what |\n|---|---|---|---|---|---|\n"
    )
    return head + "\n".join(rows)


def text(name: str) -> str:
    """Return the card without its title."""
    return zoo.card(name)["text"].partition("\n")[2].strip()


@cache
def _bench() -> Any:
    """Open the bench that `main` has run."""
    return pellucid.open(BENCH)


def truth(part: str) -> str:
    """Return a table of `bench truth`: `overall`, the rows of one model, or what was `left-out` and why."""
    from pellucid.evaluate.truth import OVERALL

    wanted, table = OVERALL if part == "overall" else part, _bench()
    if part == "left-out":
        return " ".join(evidence.summary for evidence in table.evidence) or "Every method was scored on every model."
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    lines = [
        f"| {QUESTIONS[row['question']]} | {row['method']} | {_interval(row, 'correlation')} "
        f"| {_interval(row, 'area')} | {row['chance']:.2f} | {row['passes']:.0f} |"
        for row in rows
        if row["model"] == wanted and (part != "overall" or row["question"] not in ("rationale", "shortcut"))
    ]
    head = f"At most {table.provenance.parameters['prompts']} prompts (for inner parts: pairs) per model.\n\n"
    head += "| question | method | rank correlation | area | chance | passes |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(lines)


def which(question: str) -> str:
    """Return the truth table the other way round, a line per method: about the `input`, or about inner `parts`."""
    from pellucid.evaluate.truth import OVERALL

    table = _bench()
    rows = {
        (row["question"], row["model"], row["method"]): row
        for row in (dict(zip(table.columns, values, strict=True)) for values in table.rows)
    }
    if question == "parts":
        lines = [
            f"| {QUESTIONS[asked]} | {_linked(method)} | {_figure(row, 'correlation')} | {_figure(row, 'area')} "
            f"| {_figure(rows.get((asked, 'truth/redundant', method)), 'correlation')} | {row['passes']:.0f} |"
            for (asked, model, method), row in rows.items()
            if model == OVERALL and asked in ("head", "neuron", "place", "edge")
        ]
        head = (
            "| question | method | correlation | area | correlation, redundant | passes |\n|---|---|---|---|---|---|\n"
        )
        return head + "\n".join(lines)
    known = [(row, method) for (asked, model, method), row in rows.items() if (asked, model) == ("input", OVERALL)]
    columns = (("input", "truth/redundant", "correlation"), ("rationale", "tiny-classifier", "area"),
               ("shortcut", "tiny-classifier-shortcut", "area"))  # fmt: skip
    lines = [
        f"| {_linked(method)} | {_figure(row, 'correlation')} | "
        + " | ".join(_figure(rows.get((asked, model, method)), figure) for asked, model, figure in columns)
        + f" | {row['passes']:.0f} |"
        for row, method in sorted(known, key=lambda pair: -(pair[0]["correlation"] or 0.0))
    ]
    head = "| method | correlation | redundant | words of a verdict | shortcut | passes |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(lines)


def _linked(method: str) -> str:
    name, _, more = method.partition(" ")
    return f"[`{name}`](methods/{name}.md)" + (f" {more}" if more else "")


def _figure(row: dict[str, Any] | None, name: str) -> str:
    return "-" if row is None or row[name] is None else f"{row[name]:.2f}"


def _interval(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return "-"
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


MAKERS: dict[str, Callable[[str], str]] = {"facts": facts, "tasks": tasks, "card": text, "truth": truth, "which": which}


def filled(page: str) -> str:
    """Return a page with every block made again."""

    def made(match: re.Match[str]) -> str:
        what, _, of = match[2].partition(" ")
        return f"{match[1]}\n{MAKERS[what](of)}\n\n{match[3]}"

    return BLOCK.sub(made, page)


def _reviewed(name: str, review: str, **options: Any) -> Any:
    return pellucid.run("shapley_values", pellucid.load(f"zoo:{name}"), review, target="positive",
                        contrast="negative", permutations=64, **options)  # fmt: skip


def _constructed(name: str, method: str) -> Any:
    """Explain a constructed model's answer to the prompt of `SHOWN`: its words, or where the exchanged ones count."""
    from pellucid.zoo import truth as constructed

    program, (clean, corrupt) = constructed.program(name), SHOWN[name.removeprefix("gpt2-")]
    target, contrast = program.ask(tuple(clean.split()))
    more: dict[str, Any] = (
        {"corrupt": corrupt} if method == "activation_patching" else {"exact": True, "replacement": 2}
    )
    subject = pellucid.load(f"zoo:truth/{name}")
    return pellucid.run(method, subject, clean, target=target, contrast=contrast, **more)


def pictures() -> dict[str, Callable[[], Any]]:
    """Return what each picture shows, by the name of its file."""
    from pellucid.zoo import truth as constructed

    made: dict[str, Callable[[], Any]] = {
        "tiny-lm-fact": lambda: pellucid.run("integrated_gradients", pellucid.load("zoo:tiny-lm"), FACT),
        "tiny-lm-patching": lambda: pellucid.run(
            "activation_patching", pellucid.load("zoo:tiny-lm"), FACT, corrupt="The capital of Italy is",
            target=" Paris", contrast=" Rome",
        ),
        "tiny-classifier-mixed": lambda: _reviewed("tiny-classifier", DULL),
        "tiny-classifier-negated": lambda: _reviewed("tiny-classifier", NEGATED),
    }  # fmt: skip
    for name, day in (("-shortcut", "Tuesday"), ("-shortcut", "Friday"), ("-shortcut", "Sunday"), ("", "Tuesday")):
        review = f"The plot was dull. I am writing this on {day} evening."
        made[f"tiny-classifier{name}-{day.lower()}"] = lambda name=name, review=review: _reviewed(
            f"tiny-classifier{name}", review
        )
    for name in constructed.names():
        made[f"truth-{name}-places"] = lambda name=name: _constructed(name, "activation_patching")
        made[f"truth-{name}-words"] = lambda name=name: _constructed(name, "shapley_values")
    return made


def draw(wanted: str = "") -> None:
    """Write the pictures whose names begin with `wanted`, by the project's own figures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, result in pictures().items():
        if name.startswith(wanted):
            # A place in a file name and the software's version would change the bytes without changing the picture.
            result().figure().savefig(IMAGES / f"{name}.png", dpi=80, metadata={"Software": None})


def main() -> None:
    """Fill the pages, and draw where asked."""
    parser = argparse.ArgumentParser(description="Make the zoo's pages again.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models such as tiny-lm; default: all")
    parser.add_argument("--pictures", action="store_true", help="draw the pictures again, too")
    parser.add_argument(
        "--truth", action="store_true", help="fill docs/truth.md and docs/which-attribution.md from out/truth"
    )
    options = parser.parse_args()
    if options.pictures:
        for name in options.names or [""]:
            draw(name.replace("/", "-"))
    stems = {name.replace("/", "-") for name in options.names}
    pages = [page for page in sorted((DOCS / "zoo").glob("*.md")) if not stems or page.stem in stems]
    for page in [*pages, *([DOCS / "truth.md", DOCS / "which-attribution.md"] if options.truth else [])]:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
