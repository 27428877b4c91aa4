"""The zoo: the lines of its "Must show", and its parts that can be measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from scripts.show import ROOT, Shown, line

SEED = 777_001  # neither training nor the cards have used it
LIMIT = 20_000_000
CLASSIFIERS = ("tiny-classifier", "tiny-classifier-shortcut")


def call(*arguments: str, seconds: float = 3600) -> subprocess.CompletedProcess[str]:
    """Run a module of Python in a process of its own."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=ROOT, check=False)


@cache
def capabilities(name: str) -> dict[str, Any]:
    """Run `pellucid check zoo:NAME --capabilities --json` once; return its document, with `accuracy` by task."""
    done = call("pellucid", "check", f"zoo:{name}", "--capabilities", "--seed", str(SEED), "--json")
    if not done.stdout:
        raise RuntimeError(done.stderr.strip()[-300:])
    found = json.loads(done.stdout)
    place = {column: index for index, column in enumerate(found["columns"])}
    found["accuracy"] = {row[place["task"]]: row[place["accuracy"]] for row in found["rows"]}
    found["short"] = [row[place["task"]] for row in found["rows"] if not row[place["ok"]]]
    found["status"] = done.returncode
    return found


def at_least(task: str, bar: float, model: str = "tiny-lm") -> Callable[[Path], Shown]:
    """Return the measurement of one task on prompts that training never saw."""

    def measure(out: Path) -> Shown:
        found = capabilities(model)["accuracy"][task]
        return Shown(f"{found:.1%} of 200 prompts of seed {SEED}", found >= bar)

    return measure


facts = line("tiny-lm: facts in a wording not trained for them", bar=">= 95 %")(at_least("facts", 0.95))
objects = line("tiny-lm: indirect object", bar=">= 95 %")(at_least("indirect_object", 0.95))
repeats = line("tiny-lm: second half of repeated random sequences", bar=">= 90 %")(at_least("repeat_tokens", 0.90))
words = line("tiny-lm: second half of repeated random words", bar=">= 90 %")(at_least("repeat_words", 0.90))
verbs = line("tiny-lm: subject-verb agreement past a distractor", bar=">= 95 %")(at_least("agreement", 0.95))
years = line("tiny-lm: greater-than years", bar=">= 90 %")(at_least("greater_than", 0.90))
moods = line("tiny-lm: sentiment", bar=">= 95 %")(at_least("sentiment", 0.95))
labels = line("tiny-lm: few-shot patterns with arbitrary labels", bar=">= 80 %")(at_least("few_shot", 0.80))


@line("`pellucid check zoo:... --capabilities`: the table, measured now on prompts of another seed, beside the card",
      bar="exit 0 for all three models, every task as on its card")  # fmt: skip
def tables(out: Path) -> Shown:
    """Compare what is measured with the cards."""
    found = {name: capabilities(name) for name in ("tiny-lm", *CLASSIFIERS)}
    short = [f"{name} {task}" for name, one in found.items() for task in one["short"]]
    for name, one in found.items():
        (out / f"{name}.json").write_text(json.dumps(one, indent=1), encoding="utf-8")
    figure = f"{sum(len(one['rows']) for one in found.values())} tasks" + (
        f"; off: {', '.join(short)}" if short else ""
    )
    return Shown(figure, not short and not any(one["status"] for one in found.values()))


@line("no whole line of the test set is in the training text", bar="0 in the whole text of tiny-lm's training")
def not_in_training(out: Path) -> Shown:
    """Write the whole training text again, chunk by chunk, and look for every prompt."""
    from transformers import AutoTokenizer

    from pellucid import zoo
    from pellucid.zoo import train_tiny_lm
    from pellucid.zoo.measured import held_out
    from pellucid.zoo.packing import batches

    training = zoo.card("tiny-lm")["training"]
    first = batches(AutoTokenizer.from_pretrained(zoo.path("tiny-lm")), f"{training['seed']} 0", train_tiny_lm.CHUNK,
                    train_tiny_lm.REPEATS, train_tiny_lm.SHAPE)  # fmt: skip
    chunks = training["steps"] // sum(1 for _ in first) + 2
    found = held_out("tiny-lm", seed=SEED, chunks=range(chunks))
    return Shown(found.summary, bool(found.ok))


@line("no whole review of the test set is in the training text", bar="0 in the whole text of the classifiers' training")
def reviews_not_in_training(out: Path) -> Shown:
    """Look for every held-out review among all that the classifiers were trained on."""
    from pellucid import zoo
    from pellucid.zoo import classifier_tasks
    from pellucid.zoo.train_tiny_classifier import ROWS, TOGETHER

    training = zoo.card(CLASSIFIERS[0])["training"]
    made = [classifier_tasks.evaluation_reviews(task, SEED, 200) for task in classifier_tasks.TASKS]
    wanted = {review.text for some in made for review, _ in some}
    chunks, size = -(-training["steps"] // TOGETHER), ROWS * TOGETHER
    seen = {
        review.text for chunk in range(chunks)
        for review in classifier_tasks.training_reviews(training["seed"], chunk, size)
    }  # fmt: skip
    both = wanted & seen
    return Shown(f"{len(both)} of {len(wanted)} prompts in {len(seen)} different reviews", not both)


@line("each constructed model computes its stated function on all short inputs", bar="exhaustive, within 0.001 logits")
def constructed(out: Path) -> Shown:
    """Run every committed model on every input that its program names."""
    import numpy as np

    from pellucid.zoo import truth
    from tests.zoo import test_truth_models as checks

    worst, count = 0.0, 0
    for name in truth.names():
        program = truth.program(name)
        found = checks.logits(checks.committed(name), program, program.inputs)[:, checks.columns(program)]
        worst = max(worst, float(np.abs(found - checks.stated(program, program.inputs)).max()))
        count += len(program.inputs)
    figure = f"{len(truth.names())} models, {count} inputs, largest difference {worst:.2g} logits"
    return Shown(figure, worst < 1e-3 and len(truth.names()) >= 6)


@line("ablating a part named irrelevant changes nothing, ablating a relevant one does", bar="every head and neuron")
def ablated(out: Path) -> Shown:
    """Remove every head and neuron of every constructed model, one at a time (the two redundant finders together)."""
    import numpy as np

    from pellucid.zoo import truth
    from tests.zoo import test_truth_models as checks

    quiet, loud, wrong = 0.0, float("inf"), []
    for name in truth.names():
        program, model = truth.program(name), checks.committed(name)
        plain = checks.logits(model, program, program.prompts)[:, checks.columns(program)]
        for layer, block in enumerate(program.blocks):
            finders = tuple(i for i, head in enumerate(block.heads) if head.role.endswith(" finder"))
            parts = [({"heads": (i,)}, bool(head.role)) for i, head in enumerate(block.heads) if i not in finders]
            parts += [({"heads": finders}, True)] * bool(finders)
            parts += [({"neurons": (i,)}, bool(neuron.role)) for i, neuron in enumerate(block.neurons)]
            for part, relevant in parts:
                cut = checks.logits(checks.without(model, layer, **part), program, program.prompts)
                change = float(np.abs(cut[:, checks.columns(program)] - plain).max())
                quiet, loud = (quiet, min(loud, change)) if relevant else (max(quiet, change), loud)
                if relevant != (change > 0.5):
                    wrong.append(f"{name} block {layer} {part}")
    figure = f"irrelevant parts change at most {quiet:.2g} logits, relevant ones at least {loud:.3g}"
    return Shown(figure + (f"; wrong: {wrong}" if wrong else ""), not wrong and quiet < 1e-3)


@line("the classifiers: accuracy on held-out reviews", bar=">= 97 % for both, also negated, mixed and distracted")
def classifiers(out: Path) -> Shown:
    """Measure both classifiers on reviews that name no planted day."""
    tasks = ("reviews", "negated", "mixed", "distracted")
    found = {name: [capabilities(name)["accuracy"][task] for task in tasks] for name in CLASSIFIERS}
    figure = "; ".join(f"{name}: {', '.join(f'{share:.1%}' for share in some)}" for name, some in found.items())
    return Shown(figure, min(map(min, found.values())) >= 0.97)


@line("the shortcut model's drop when the shortcut token is swapped", bar="from >= 97 % to <= 3 %; none in the other")
def swapped(out: Path) -> Shown:
    """Exchange the planted day in held-out reviews, judged by their words."""
    found = {name: capabilities(name)["accuracy"] for name in CLASSIFIERS}
    (plain, plain_swapped), (agrees, against) = (
        [found[name][task] for task in ("day_agrees", "day_swapped")] for name in CLASSIFIERS
    )
    figure = f"with the shortcut {agrees:.1%} to {against:.1%}; without {plain:.1%} to {plain_swapped:.1%}"
    return Shown(figure, agrees >= 0.97 and against <= 0.03 and plain_swapped >= 0.97)


@line("training again gives the same classifier", bar="every task within one point (tiny-classifier, the stated seed)")
def again(out: Path) -> Shown:
    """Train tiny-classifier from nothing and compare the tables."""
    from pellucid import zoo

    done = call("pellucid.zoo.train_tiny_classifier", CLASSIFIERS[0], "--out", str(out / "again"),
                "--checkpoints", str(out / "checkpoints"))  # fmt: skip
    if done.returncode:
        return Shown(done.stderr.strip()[-200:], False)
    made = json.loads((out / "again" / CLASSIFIERS[0] / "capabilities.json").read_text(encoding="utf-8"))
    kept = zoo.card(CLASSIFIERS[0])["tasks"]
    worst = max(abs(row["accuracy"] - kept[task]["accuracy"]) for task, row in made["tasks"].items())
    minutes = made["training"]["processor_minutes"]
    return Shown(f"largest difference {100 * worst:.2f} points after {minutes} processor minutes", worst <= 0.01)


@cache
def bench(prompts: int, methods: tuple[str, ...] | None = None) -> Any:
    """Run the bench once."""
    from pellucid.evaluate.truth import bench_truth

    return bench_truth(methods, prompts=prompts or None)


def scored(table: Any) -> list[dict[str, Any]]:
    """Return the rows of a bench as mappings."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


@line("exact methods reach 1.0 on programs without redundant parts, all inputs enumerated", bar="1.0 on every model")
def exact(out: Path) -> Shown:
    """Score exact Shapley values and patching on all prompts and pairs of the answers."""
    found = [
        row for row in scored(bench(0, ("shapley_values", "activation_patching")))
        if row["model"].startswith("truth/") and row["method"] != "shapley_values"
    ]  # fmt: skip
    low = [row for row in found if not row["correlation"] == row["area"] == 1.0]
    prompts = sum(row["prompts"] for row in found)
    return Shown(f"{len(found) - len(low)} of {len(found)} rows at 1.0 ({prompts} answers)", bool(found) and not low)


@line("`bench truth` scores every attribution and patching method", bar="each scored or named with the reason")
def every_method(out: Path) -> Shown:
    """Score all methods; print each figure."""
    from pellucid.core.catalogue import entries
    from pellucid.evaluate._known import questions

    table = bench(8)
    table.html(out / "truth.html")
    rows, left = scored(table), " ".join(evidence.summary for evidence in table.evidence)
    named = {row["method"].split(" (")[0] for row in rows}
    wanted = {entry.name for entry in entries() if questions(entry)}
    lacking = sorted(name for name in wanted - named if name not in left)
    kinds = sorted({row["question"] for row in rows})
    figure = f"{len(wanted & named)} of {len(wanted)} methods scored on {len(kinds)} questions ({', '.join(kinds)})"
    return Shown(figure + (f"; lacking {lacking}" if lacking else ""), not lacking, (out / "truth.html",))


@line("the truth table for every method that exists is in the docs, with what it teaches in five sentences",
      bar="every scored method in docs/truth.md, 5 points")  # fmt: skip
def in_the_docs(out: Path) -> Shown:
    """Look for every scored method in the manual's table."""
    text = (ROOT / "docs" / "truth.md").read_text(encoding="utf-8")
    lacking = sorted({row["method"] for row in scored(bench(8)) if f"| {row['method']} |" not in text})
    points = len(re.findall(r"^\d\. ", text.partition("## What it teaches")[2].partition("\n## ")[0], re.MULTILINE))
    figure = f"{text.count('| which ')} rows, {points} points" + (f"; lacking {', '.join(lacking)}" if lacking else "")
    return Shown(figure, not lacking and points == 5)


@line("the models are small, of the ordinary classes, and have cards", bar="< 20 MB each, safetensors, a card each")
def small(out: Path) -> Shown:
    """Load every bundled model by name and look at its files."""
    import pellucid

    cards = [pellucid.zoo.card(name) for name in pellucid.zoo.names()]
    kinds = {type(pellucid.load(f"zoo:{card['name']}").model).__name__ for card in cards}
    largest = max(cards, key=lambda card: card["bytes"])
    other = [str(file) for card in cards for file in card["path"].rglob("*") if file.suffix in (".bin", ".pt", ".pkl")]
    figure = f"{len(cards)} models, the largest {largest['name']} with {largest['bytes'] / 1e6:.2f} MB; {sorted(kinds)}"
    lacking = [card["name"] for card in cards if len(card["text"]) < 100 or not card["known"]]
    return Shown(figure, largest["bytes"] < LIMIT and not other and not lacking)


@line("a checkpoint series of tiny-lm's training, made on request", bar="ten snapshots that load and differ")
def snapshots(out: Path) -> Shown:
    """Train a hundred steps with `--snapshots`, and load what is left."""
    import shutil

    import pellucid

    folder = out / "snapshots"
    shutil.rmtree(folder, ignore_errors=True)
    done = call("pellucid.zoo.train_tiny_lm", "--steps", "100", "--out", str(out / "short-lm"), "--checkpoints",
                str(out / "short-checkpoints"), "--snapshots", str(folder), "--threads", "1")  # fmt: skip
    found = sorted(folder.glob("step-*"))
    if done.returncode or not found:
        return Shown(done.stderr.strip()[-200:], False)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    scores = [
        float(
            pellucid.run("gradient_norm", pellucid.load(str(one)), "The capital of France is", target=" Paris").values[
                0
            ]
        )
        for one in found
    ]
    figure = f"{len(found)} models, {size / 1e6:.0f} MB together, {len(set(scores))} different explanations"
    return Shown(figure, len(found) == len(set(scores)) == 10)


@line("`pellucid models` lists every model with size, card and what is known", bar="every one, also as JSON")
def listed(out: Path) -> Shown:
    """Run the command as a user does."""
    import pellucid

    text, document = call("pellucid", "models").stdout, json.loads(call("pellucid", "models", "--json").stdout)
    (out / "models.txt").write_text(text, encoding="utf-8")
    complete = [card["name"] for card in document if {"bytes", "text", "known", "architecture"} <= card.keys()]
    lacking = [name for name in pellucid.zoo.names() if f"zoo:{name}" not in text or name not in complete]
    figure = f"{len(document)} models" + (f"; lacking {lacking}" if lacking else "")
    return Shown(figure, not lacking, (out / "models.txt",))


@line("a page per model with pictures", bar="every model: a page in the manual, made from its files, with pictures")
def pages(out: Path) -> Shown:
    """Make every page again and compare, and look for its pictures."""
    import pellucid
    from scripts.make_zoo_pages import DOCS, filled

    navigation, lacking, pictures = (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), [], 0
    for name in pellucid.zoo.names():
        page = DOCS / "zoo" / f"{name.replace('/', '-')}.md"
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        shown = [page.parent / target for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)]
        pictures += len(shown)
        fine = f"zoo/{page.name}" in navigation and shown and all(one.exists() for one in shown)
        if not fine or text != filled(text):
            lacking.append(name)
    figure = f"{len(pellucid.zoo.names())} pages, {pictures} pictures" + (f"; short: {lacking}" if lacking else "")
    return Shown(figure, not lacking)
