"""Everything that perturbs the input: the lines of its "Must show", and its parts that can be measured."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from scripts.show import ROOT, Shown, _games, line
from scripts.show.engine import records

PARTS = (_games,)
ROWS = (
    *(f"FAP-{number}" for number in range(1, 9)), *(f"FAS-{number}" for number in range(1, 6)),
    "N-AT2", "N-AT4", "N-AT5", "N-AT6", "N-AT10", "STD-sobol-attribution", "STD-anchors",
)  # fmt: skip
METRICS = ("comprehensiveness", "sufficiency", "deletion_area", "insertion_area", "leave_one_out_correlation")
TEN = [11, 42, 7, 23, 64, 5, 9, 31, 77, 50]
CHAT = [
    {"role": "user", "content": "Anna lives in Paris."},
    {"role": "assistant", "content": "Good."},
    {"role": "user", "content": "Where does Anna live?"},
]
# Positive means that a unit raises the target, but the scores are not the parts of the target themselves.
OTHER_QUANTITIES = {
    "anchors": "precision", "input_marginalisation": "bits against likely words", "input_reduction": "what is left",
    "language_model_explainer": "ranks", "minimal_erasure_set": "members of a set", "reagent": "updates of a recursion",
    "token_shap": "likeness of answers",
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "context_cite": {"unit": "token", "penalty": 1e-6},
    "tracllm": {"keep": 5, "scorer": "left_out"},
}


def delivered() -> list[Any]:
    """Return the methods that carry a row of this issue; RISE is asked for, but has no row of its own."""
    from pellucid.core.catalogue import entries

    return [entry for entry in entries() if entry.name == "rise" or set(entry.rows) & set(ROWS)]


@line("one row, one file", bar="every row of the issue is carried by a method")
def rows(out: Path) -> Shown:
    """Look for every row among the methods."""
    found = delivered()
    lacking = sorted(set(ROWS) - {row for entry in found for row in entry.rows})
    figure = f"{len(ROWS)} rows, {len(found)} methods" + (f"; lacking {lacking}" if lacking else "")
    return Shown(figure, not lacking)


@line("on a linear bag-of-embeddings model every signed attribution equals w (x - b)", bar="to 0.001 of the logit")
def linear(out: Path) -> Shown:
    """Explain a vote of words by every signed method of the issue; pairs must be zero."""
    import pellucid
    from tests.linear import linear

    case, equal, short = linear(), [], []
    for entry in delivered():
        if entry.takes != "prompt" or entry.axes[:1] != ("unit",) or entry.name in OTHER_QUANTITIES:
            continue
        names = {parameter["name"] for parameter in entry.parameters}
        asked = {key: value for key, value in (*case.asked.items(), ("replacement", case.blank)) if key in names}
        found = pellucid.run(entry.name, case.subject, case.ids, **asked, **SETTINGS.get(entry.name, {}))
        if not found.sign.startswith("positive"):
            continue
        gap = found.scores - (case.weights if found.scores.ndim == 1 else np.diag(case.weights))
        (equal if np.abs(gap).max() < 1e-3 else short).append(entry.name)
    figure = f"{len(equal)} methods equal ({', '.join(equal)}); short: {short or 'none'}; other quantities by "
    return Shown(figure + f"definition: {', '.join(OTHER_QUANTITIES)}", len(equal) >= 10 and not short)


@line("10 units: exact Shapley, Banzhaf, KernelSHAP, LIME, interactions and five deletion metrics together",
      bar="<= 1,024 forwards, counted, every estimate exact")  # fmt: skip
def ten_units(out: Path) -> Shown:
    """Run them on one prompt; metrics with 20 random orders each."""
    import pellucid
    from tests import games, plain

    model = plain.tiny("llama")
    subject = pellucid.load(model)
    asked: dict[str, Any] = {"target": plain.TARGET, "replacement": 3}
    table = games.of_model(model, TEN, 3)
    truth, sampled = _games.by_definition(table), []
    settings: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("shapley_values", "shapley", {"exact": True}), ("banzhaf_values", "banzhaf", {"samples": 1024}),
        ("kernel_shap", "shapley", {"samples": 1024}), ("lime", "", {"samples": 1024}),
        ("shapley_interactions", "k-SII", {}), ("shapley_interactions", "STII", {"index": "STII"}),
        ("shapley_interactions", "FSII", {"index": "FSII"}),
    )  # fmt: skip
    gap = 0.0
    with subject.recorded() as record:
        for name, kind, more in settings:
            found = pellucid.run(name, subject, TEN, **asked, **more)
            sampled += [name] if found.std_error is not None else []
            gap = max(gap, float(np.abs(_games.flat(found.scores) - truth[kind]).max()) if kind else 0.0)
        exact = pellucid.run("shapley_values", subject, TEN, exact=True, **asked)
        judged = [pellucid.run(name, subject, TEN, scores=exact, **asked) for name in METRICS]
    forwards = record.forwards
    figure = f"{forwards:,} forwards for {len(settings)} explanations and {len(judged)} metrics, differing by {gap:.0e}"
    return Shown(figure, forwards <= 1024 and gap < 1e-6 and not sampled)


@contextmanager
def tokens_computed(model: Any) -> Iterator[list[int]]:
    """Count the positions that go through the first block of a model in this context."""
    from torch.nn.modules.module import register_module_forward_hook

    count, watched = list[int](), model.model.layers[0].mlp.up_proj

    def note(module: Any, given: Any, _: Any) -> None:
        if module is watched:
            count.append(given[0].numel() // given[0].shape[-1])

    # A hook on the model itself would be somebody else's, with which scores are not kept.
    hook = register_module_forward_hook(note)
    try:
        yield count
    finally:
        hook.remove()


@line("50 units: the counted saving", bar="printed; fewer forwards together than alone, fewer tokens than rows hold")
def fifty_units(out: Path) -> Shown:
    """Run the same methods at their defaults and the metrics, first each alone and then with the store."""
    import pellucid
    from pellucid.engine import store
    from tests import plain

    model = plain.tiny("llama").float()
    subject = pellucid.load(model)
    asked: dict[str, Any] = {"target": plain.TARGET, "replacement": 3}
    prompt = np.random.default_rng(0).integers(4, 90, size=50).tolist()
    names = ("occlusion", "shapley_values", "banzhaf_values", "kernel_shap", "leverage_shapley", "lime",
             "shapley_interactions")  # fmt: skip

    def everything() -> None:
        results = [pellucid.run(name, subject, prompt, **asked) for name in names]
        for name in METRICS:
            pellucid.run(name, subject, prompt, scores=results[3], **asked)

    with store.unused(), subject.recorded() as alone:
        everything()
    with subject.recorded() as together, tokens_computed(model) as tokens, store.taken() as known:
        everything()
    held, computed = 50 * together.forwards, sum(tokens)
    figure = (
        f"{alone.forwards:,} forwards alone, {together.forwards:,} together ({known.rows:,} known), which hold "
        f"{held:,} tokens; {computed:,} computed ({held / computed:.2f} x fewer by shared beginnings, "
        f"{50 * alone.forwards / computed:.2f} x in all)"
    )
    return Shown(figure, together.forwards < alone.forwards and computed < held)


@line("chats: roles and messages are units, and contrasts are taken, everywhere",
      bar="every method with units, three messages, contrast wherever a target is scored")  # fmt: skip
def chats(out: Path) -> Shown:
    """Explain a chat of three messages by every method of the issue that takes units."""
    import pellucid
    from pellucid.core.errors import GeneratorError
    from pellucid.generators import ScriptedGenerator

    subject, short, without, count = pellucid.load("zoo:tiny-lm"), [], [], 0
    writer = ScriptedGenerator(lambda request: "1, 3")
    for entry in delivered():
        names = {parameter["name"] for parameter in entry.parameters}
        if entry.takes != "prompt" or "unit" not in names:
            without.append(entry.name)
            continue
        more: dict[str, Any] = {"target": " Paris", "contrast": " Rome", "generator": writer}
        used = {"target", "contrast"} | ({"generator"} if entry.name == "language_model_explainer" else set())
        given = {key: value for key, value in more.items() if key in names & used}
        try:
            found = pellucid.run(entry.name, subject, CHAT, unit="message", **given)
        except GeneratorError as error:
            short.append(f"{entry.name}: {error}"[:80])
            continue
        count += 1
        if found.units is None or found.units.labels != ("user", "assistant", "user"):
            short.append(entry.name)
        if "contrast" not in names and entry.name not in ("information_loss", "perturbed_masking"):
            short.append(f"{entry.name} has no contrast")
    figure = f"{count} methods; units of their own: {', '.join(without)}"
    return Shown(figure + (f"; short: {short}" if short else ""), not short)


@line("bench/, 128 + 32 tokens, 20 units: KernelSHAP, permutation and LIME, encoder classifier, occlusion, ContextCite",
      bar=">= 4 x SHAP and Captum, >= 1.7 x on an encoder, >= 30 x Inseq, >= 2 x context-cite")  # fmt: skip
def side_by_side(out: Path) -> Shown:
    """Read what `make bench` saved."""
    jobs = {"kernel-shap": 4.0, "shapley": 4.0, "lime": 4.0, "encoder-shapley": 1.7, "occlusion-matrix": 30.0,
            "context-cite": 2.0}  # fmt: skip
    figures, short = [], []
    for job, bar in jobs.items():
        ways = [
            (f"{job} over {one['peer']} ({name}) on {one['model']}", way["wall"]["median"])
            for one in records(job) if "failed" not in one for name, way in one["ways"].items()
        ]  # fmt: skip
        figures += [f"{name} {median:.2f}" for name, median in ways]
        short += [name for name, median in ways if median < bar] or ([] if ways else [f"{job} not run"])
    return Shown("; ".join([*figures, *(f"short: {name}" for name in short)]), not short)


@line(
    "the truth table of the zoo with these methods in it", bar="every method of the issue that it can ask, scored now"
)
def truth_table(out: Path) -> Shown:
    """Score the issue's methods on two prompts of each constructed model, and look for them in the manual."""
    from pellucid.evaluate._known import questions
    from pellucid.evaluate.truth import COLUMNS, bench_truth

    names = [entry.name for entry in delivered() if questions(entry)]
    table = bench_truth(names, ["truth/fact", "truth/majority", "truth/redundant"], prompts=2)
    table.html(out / "truth.html")
    scored = {row[COLUMNS.index("method")].split(" (")[0] for row in table.rows}
    said = " ".join(evidence.summary for evidence in table.evidence)
    lacking = [name for name in names if name not in scored and name not in said]
    text = (ROOT / "docs" / "truth.md").read_text(encoding="utf-8")
    written = [name for name in names if re.search(rf"\| {name}( \(\w+\))? \|", text)]
    figure = f"{len(scored)} of {len(names)} scored, the others named with the reason; {len(written)} in docs/truth.md"
    return Shown(figure + (f"; lacking {lacking}" if lacking else ""), not lacking, (out / "truth.html",))
