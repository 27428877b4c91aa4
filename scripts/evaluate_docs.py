"""Put the tables and figures of the evaluations into docs/evaluation.md, between its markers.

python -m scripts.evaluate_docs [FOLDER]    FOLDER: where the evaluations ran, default out/evaluation
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from scripts.evaluate_common import ROOT, out_folder

PAGE = ROOT / "docs" / "evaluation.md"
IMAGES = ROOT / "docs" / "images"
ABOUT = {
    "reviews": (
        "Reviews whose deciding words are known",
        "`zoo:tiny-classifier` judges 200 generated reviews by a few words that are known, and was\n"
        "trained with masked words, so that removing words asks it nothing new. Explained is the probability of\n"
        "the predicted class.",
    ),
    "sst2": (
        "SST-2",
        "A linear head, trained by logistic regression on the frozen sentence model all-MiniLM-L6-v2; 200 sentences\n"
        "of the test set. Explained is the probability of the predicted class.",
    ),
    "generation": (
        "Answers of a language model",
        "`zoo:tiny-lm` on 50 prompts; explained is the log-probability of its own answer of up to ten tokens.",
    ),
    "cose": (
        "Plausibility on CoS-E",
        "Which words of a question make all-MiniLM-L6-v2 find it similar to the right answer, compared with what\n"
        "people highlighted as its support. Agreement with people does not say that an explanation is what the\n"
        "model does.",
    ),
}


def block(name: str, folder: Path) -> str | None:
    """Return the table, the time and the figure of one evaluation, or None where it has not run to its end."""
    table, times = folder / f"{name}.md", folder / f"{name}.times.jsonl"
    if not (table.is_file() and times.is_file()):
        return None
    runs = [json.loads(text) for text in times.read_text(encoding="utf-8").splitlines()]
    pieces, seconds, processor = (sum(run[key] for run in runs) for key in ("pieces", "seconds", "processor_seconds"))
    last = runs[-1]
    shutil.copyfile(folder / f"{name}.svg", IMAGES / f"evaluation-{name}.svg")
    said = (
        f"{last['methods']} methods, {last['metrics']} metrics, {last['examples']} examples: {pieces:,} explanations "
        f"and values in {processor:.0f} s of processor time ({seconds:.0f} s on two cores)."
    )
    picture = f"![Means with 95 % intervals per method and metric; dashed: chance](images/evaluation-{name}.svg)"
    heading, about = ABOUT[name]
    return f"### {heading}\n\n{about}\n\n{table.read_text(encoding='utf-8')}\n{said}\n\n{picture}\n"


def main() -> None:
    """Fill every marked place whose evaluation is there."""
    text, folder = PAGE.read_text(encoding="utf-8"), out_folder()
    for name in ABOUT:
        found = block(name, folder)
        if found is not None:
            marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
            text = marked.sub(lambda match, found=found: f"{match[1]}{found}{match[2]}", text)
            print(f"{name}: written")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
