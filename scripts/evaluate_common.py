"""What the four evaluations of docs/evaluation.md share: where data are, a clock, and where results go.

    python -m scripts.evaluate_sst2 [FOLDER]        a linear head over a sentence model, on SST-2
    python -m scripts.evaluate_reviews [FOLDER]     zoo:tiny-classifier, with the words that decide
    python -m scripts.evaluate_generation [FOLDER]  zoo:tiny-lm, answers of ten tokens
    python -m scripts.evaluate_cose [FOLDER]        plausibility on CoS-E

Each is one resumable run: started again with the same folder (default: out/evaluation) it goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from pellucid.core.saving import write_text
from pellucid.evaluate.over_data import Evaluation, evaluate_dataset
from pellucid.evaluate.over_data.report import figure

ROOT = Path(__file__).resolve().parent.parent
WORKERS = min(2, os.cpu_count() or 1)
METHODS = (
    "occlusion", "lime", "kernel_shap", "gradient_norm", "gradient_x_input", "integrated_gradients", "smoothgrad",
    "grad_sam", "attention_rollout", "globenc", "lrp", "attn_lrp",
)  # fmt: skip
METRICS = (
    "comprehensiveness", "sufficiency", "log_odds", "decision_flip_top", "leave_one_out_correlation",
    "order_violation", "polarity_violation", "infidelity", "sensitivity_n",
)  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "lime": {"samples": 64}, "kernel_shap": {"samples": 64}, "integrated_gradients": {"steps": 8},
    "smoothgrad": {"samples": 8}, "infidelity": {"samples": 16}, "sensitivity_n": {"samples": 16},
}  # fmt: skip


def data_folder() -> Path:
    """Return the folder of development data: PELLUCID_DATA, else shared/data beside the project."""
    named = os.environ.get("PELLUCID_DATA")
    return Path(named) if named else ROOT.parent / "shared" / "data"


def out_folder() -> Path:
    """Return the folder that the command line names, else out/evaluation."""
    return Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "out" / "evaluation"


def settings_for(*names: str) -> dict[str, dict[str, Any]]:
    """Return the settings of those methods and metrics that are asked for."""
    return {name: SETTINGS[name] for name in names if name in SETTINGS}


def run(name: str, subject: Any, data: Any, folder: Path, **asked: Any) -> Evaluation:
    """Evaluate with a record in the folder, then write page, figure, tables and a note of the time it took."""
    folder.mkdir(parents=True, exist_ok=True)
    start, before, shown = time.perf_counter(), sum(os.times()[:4]), [0.0]

    def progress(done: int, total: int, left: float) -> None:
        if time.perf_counter() - shown[0] >= 15 or done == total:
            shown[0] = time.perf_counter()
            print(f"{name}: {done} of {total}, about {left:.0f} s left", file=sys.stderr, flush=True)

    found = evaluate_dataset(
        subject, data, record=folder / f"{name}.evaluation", progress=progress, workers=WORKERS, **asked
    )
    took = {"seconds": time.perf_counter() - start, "processor_seconds": sum(os.times()[:4]) - before,
            "pieces": found.computed, "examples": len(found.examples), "methods": len(found.methods),
            "metrics": len(found.metrics)}  # fmt: skip
    found.html(folder / f"{name}.html")
    write_text(folder / f"{name}.svg", figure(found))
    write_text(folder / f"{name}.md", markdown(found))
    with (folder / f"{name}.times.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(took) + "\n")
    found.show()
    print(json.dumps(took))
    return found


def markdown(found: Evaluation) -> str:
    """Return the means as a table in Markdown; bold where no test tells a method from the best one."""
    arrows = {"higher": "↑", "lower": "↓"}
    good = {metric: found.as_good(metric) for metric in found.metric_names}
    head = [f"{metric.replace('_', ' ')} {arrows[found.better(metric)]}" for metric in found.metric_names]
    lines = ["| method | " + " | ".join(head) + " |", "|---" * (1 + len(head)) + "|"]
    for method in found.method_names:
        cells = []
        for metric in found.metric_names:
            cell = found.cells[method, metric].values
            text = f"{cell['value']:.3g} [{cell['low']:.3g}, {cell['high']:.3g}]"
            cells.append(f"**{text}**" if method in good[metric] else text)
        lines.append(f"| {method.replace('_', ' ')} | " + " | ".join(cells) + " |")
    chance = [found.chance(metric) for metric in found.metric_names]
    lines.append("| chance | " + " | ".join("–" if level != level else f"{level:.3g}" for level in chance) + " |")
    return "\n".join(lines) + "\n"
