"""Put the tables and pictures of the story of an edit into docs/editing.md, between its markers.

    python -m scripts.editing_docs [FOLDER] [--pairs N]

FOLDER (default: out/editing) is where the study's result is, or is saved to where it is not there yet.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pellucid
from pellucid.core.results import Explanation, Result, Scores, Table

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "editing.md"
IMAGES = ROOT / "docs" / "images"
SHOWN = (
    "editor", "efficacy", "said freely", "generality", "locality", "same answers nearby", "score",
    "n-gram entropy (bits)", "KL on neutral text (nats)", "perplexity after", "layers", "rank", "norm ratio",
    "reverted bit for bit",
)  # fmt: skip
EXAMPLES = 8


def story(folder: Path, pairs: int) -> Explanation:
    """Return the saved story, or tell it and save it."""
    if not (folder / "result").is_dir():
        start, processor = time.perf_counter(), time.process_time()
        found = pellucid.run("locate_change_prove", pellucid.load("zoo:tiny-lm"), pairs=pairs)
        print(f"told in {time.perf_counter() - start:.0f} s ({time.process_time() - processor:.0f} s of processor)")
        folder.mkdir(parents=True, exist_ok=True)
        found.save(folder / "result")
        found.html(folder / "report.html")
    opened: Any = pellucid.open(folder / "result")
    return opened


def titled(found: Explanation, *starts: str) -> list[Any]:
    """Return the results whose titles begin, or after the name of an editor begin, with the words given."""
    return [one for start in starts for one in found.results if re.match(rf"(\w+: )?{re.escape(start)}", one.title)]


def markdown(table: Table, columns: Sequence[str] | None = None, most: int | None = None) -> str:
    """Return a table in Markdown."""
    shown = list(columns or table.columns)
    places = [table.columns.index(name) for name in shown]
    lines = [shown, ["---"] * len(shown), *([row[i] for i in places] for row in table.rows[:most])]
    return "\n".join("| " + " | ".join(_cell(value) for value in row) + " |" for row in lines)


def _cell(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def noted(found: Explanation, *starts: str) -> str:
    """Return the sentences that begin with one of the words, as a list."""
    return "\n".join(f"- {note}" for note in found.notes if note.startswith(starts))


def draw(result: Result, name: str, alt: str) -> str:
    """Write a picture of a result and return the line that shows it."""
    result.figure().savefig(IMAGES / f"editing-{name}.svg", metadata={"Date": None})
    return f"![{alt}](images/editing-{name}.svg)"


def blocks(found: Explanation) -> dict[str, str]:
    """Return what stands at each marked place of the page."""
    knew = next(one.summary for one in found.evidence if one.name == "what the model knew")
    mean, first = titled(found, "Feed-forward layers"), titled(found, "Residual stream")
    editors, grid = titled(found, "The same facts")[0], titled(found, "Which facts hold")[0]
    steered = [one for one in found.results if isinstance(one, Scores) and one.title.startswith("Steered")]
    curves = Explanation(
        title="Dose-response of sentiment", evidence=tuple(check for one in steered for check in one.evidence)
    )
    explained = Explanation(title="One fact explained", results=tuple(titled(found, "Before the edit", "After the")))
    parting = next(one for one in found.evidence if one.name == "parting of the two sets")
    seen = draw(titled(found, "What the direction")[0], "reading", "The projection of every token on the direction")
    return {
        "located": "\n\n".join([
            f"{knew} {noted(found, 'Located').removeprefix('- ')}",
            draw(Explanation(title="Causal tracing", results=(*mean, *first)), "tracing",
                 "What clean values bring back under noise, by layer and by token"),
        ]),
        "editors": "\n\n".join([
            markdown(editors, SHOWN),
            noted(found, "Left out", "Changed", "Reverted"),
            draw(grid, "editors", "Shares of facts that hold and of answers that stay, by editor"),
        ]),
        "alone": markdown(titled(found, "One fact at a time")[0]),
        "said": markdown(titled(found, "What the model says")[0], most=EXAMPLES),
        "explained": "\n\n".join([
            noted(found, "Explained").removeprefix("- "),
            draw(explained, "explained", "What each token adds to the new answer, before and after the edit"),
            draw(titled(found, "What moved inside")[0], "moved", "How far the stream moves, by layer and kind of text"),
        ]),
        "steered": "\n\n".join([
            parting.summary,
            seen,
            noted(found, "Steered", "Of "),
            draw(curves, "doses", "Behaviour, KL and perplexity by coefficient, beside random directions"),
            markdown(titled(found, "Taken out")[0]),
        ]),
    }  # fmt: skip


def main() -> None:
    """Tell the story where it is not saved yet, and fill the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "out" / "editing")
    parser.add_argument("--pairs", type=int, default=50)
    given = parser.parse_args()
    made, text = blocks(story(given.folder, given.pairs)), PAGE.read_text(encoding="utf-8")
    for name, block in made.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text, count = marked.subn(lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text)
        print(f"{name}: {'written' if count else 'no place in the page'}")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
