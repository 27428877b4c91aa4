"""Local explanation by gradients, relevance, vectors and attention: the lines of its "Must show"."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from scripts.show import ROOT, Shown, _gradient_paths, line, vectors
from scripts.show.engine import records

PARTS = (_gradient_paths, vectors)
ROWS = (
    *(f"FAG-{number}" for number in range(1, 9)), *(f"FAD-{number}" for number in range(1, 6)),
    *(f"FAV-{number}" for number in range(1, 8)), *(f"ATT-{number}" for number in range(1, 19)), "N-AT1", "N-AT3",
    "N-AT7", "N-AT8", "N-AT9", "STD-deeplift", "STD-gradientshap", "STD-smoothgrad", "STD-vargrad", "STD-squaregrad",
    "STD-layer-gradient-x-activation",
)  # fmt: skip
FAMILIES = ("attribution", "relevance", "vectors", "attention")
AT_ONCE = 8  # methods whose contract runs in one process
RULES = {
    "lrp": "LRP", "attn_lrp": "AttnLRP", "deep_taylor": "deep Taylor", "deeplift": "DeepLIFT",
    "transformer_attribution": "transformer attribution", "contextual_decomposition": "contextual decomposition",
    "gim": "GIM", "relevance_patching": "relevance patching", "detached_jacobian": "detached Jacobian",
    "source_target_shares": "source and target shares",
}  # fmt: skip


def delivered() -> list[Any]:
    """Return the methods that carry a row of this issue."""
    from pellucid.core.catalogue import entries

    return [entry for entry in entries() if entry.kind == "method" and set(entry.rows) & set(ROWS)]


def tests(*arguments: str) -> tuple[str, bool]:
    """Run tests in a process of their own; return pytest's last line and whether all passed and some were run."""
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    said = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["pytest said nothing"])[-1]
    return said.strip("= "), done.returncode == 0


@line("one row, one file", bar="every row of the issue is carried, or the map says why not")
def rows(out: Path) -> Shown:
    """Look for every row among the methods and in the map."""
    from pellucid.core.catalogue import entries

    text = (ROOT / "src" / "pellucid" / "core" / "map.json").read_text(encoding="utf-8")
    reasons = {row["id"]: row["reason"] for row in json.loads(text) if row["reason"]}
    found = [entry for entry in entries() if set(entry.rows) & set(ROWS)]
    carried = {row for entry in found for row in entry.rows}
    left = [row for row in ROWS if row not in carried]
    lacking = [row for row in left if row not in reasons]
    figure = f"{len(ROWS)} rows, {len(found)} methods and metrics; not delivered: "
    figure += " ".join(f"{row} ({reasons[row]})" for row in left if row in reasons) or "none"
    return Shown(figure + (f"; lacking {lacking}" if lacking else ""), not lacking)


@line("LRP with epsilon = 0 conserves in every block, the share of biases stated",
      bar="<= 1e-5 of the logit per block and in all, float64, every architecture")  # fmt: skip
def conserved(out: Path) -> Shown:
    """Read the books of every tiny model, block by block, and write them down."""
    import pellucid
    from pellucid.core.errors import CapabilityError

    worst, most, written, refused, blocks = 0.0, 0.0, [], [], 0
    for name, subject in vectors.models().items():
        try:
            books = pellucid.run("lrp", subject, vectors.IDS, target=1, epsilon=0.0).evidence[0]
        except CapabilityError as error:
            refused.append(f"{name}: {error}")
            continue
        start = abs(books.values["start"])
        left = [books.values["remainder"], *books.curves.get("remainder", ())]
        gap = max(abs(each) for each in left) / start
        share = abs(books.values["constants"]) / start
        blocks += len(left) - 1
        worst, most = max(worst, gap), max(most, share)
        written.append(f"{name}: remainder {gap:.1e} of the logit, constants {share:.3f} of it; by block "
                       f"{[round(value, 4) for value in books.curves.get('constants', ())]}")  # fmt: skip
    (out / "conservation.txt").write_text("\n".join([*written, *refused]) + "\n", encoding="utf-8")
    figure = f"{len(written)} architectures, {blocks} blocks, largest remainder {worst:.1e}; biases take up to "
    figure += f"{most:.2f} of the logit (all in conservation.txt)"
    return Shown(figure + (f"; refused: {refused}" if refused else ""), worst <= 1e-5 and blocks > 0)


@line("each rule equals a plain re-derivation from weights and Jacobians", bar="the tests of every rule pass")
def rules(out: Path) -> Shown:
    """Run the tests that write each rule out."""
    files = ["tests/engine/test_rules.py", *(f"tests/methods/test_{name}.py" for name in RULES)]
    said, ok = tests(*files)
    return Shown(f"{', '.join(RULES.values())}: {said}", ok)


@line("rollout and flow on hand-worked graphs", bar="equal to 1e-8")
def graphs(out: Path) -> Shown:
    """Put two layers of three tokens into a model, and compare with the figures worked by hand."""
    import numpy as np
    import torch

    import pellucid
    from tests import plain

    patterns = [
        [[1.0, 0.0, 0.0], [0.8, 0.2, 0.0], [0.1, 0.4, 0.5]],
        [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.6, 0.2]],
    ]  # fmt: skip
    edits = [
        pellucid.Edit(f"blocks.{layer}.attn.pattern", "set", torch.tensor(pattern, dtype=torch.float64))
        for layer, pattern in enumerate(patterns)
    ]
    subject = pellucid.load(plain.tiny()).with_(*edits)
    # With the residual half, layer 1 mixes (0.1, 0.3, 0.6) of rows (1, 0, 0), (0.4, 0.6, 0) and (0.05, 0.2, 0.75).
    expected = {"attention_rollout": [0.1 + 0.12 + 0.03, 0.18 + 0.12, 0.45], "attention_flow": [0.45, 0.5, 0.6]}
    gaps = {
        name: float(np.abs(pellucid.run(name, subject, [11, 42, 7], target=plain.TARGET).scores - by_hand).max())
        for name, by_hand in expected.items()
    }
    said, ok = tests("tests/methods/test_attention_rollout.py", "tests/methods/test_attention_flow.py")
    figure = ", ".join(f"{name} {gap:.0e}" for name, gap in gaps.items())
    return Shown(f"{figure}; against products and networkx: {said}", ok and max(gaps.values()) < 1e-8)


@line("DeepLIFT and integrated gradients agree on a linear model", bar="to 1e-6 of the logit; both equal w (x - b)")
def linear(out: Path) -> Shown:
    """Explain a vote of words, whose logit is linear in them, and a GPT-2 whose blocks add nothing."""
    import numpy as np

    import pellucid
    from tests.linear import linear

    case = linear()
    asked = {**case.asked, "baseline": case.blank}
    found = [
        pellucid.run(name, case.subject, case.ids, **asked).scores for name in ("deeplift", "integrated_gradients")
    ]
    gap, truth = (float(np.abs(a - b).max()) for a, b in (found, (found[0], case.weights)))
    said, ok = tests("tests/methods/test_deeplift.py", "-k", "linear")
    figure = f"differ by {gap:.1e}, from the known weights by {truth:.1e}; blocks that add nothing: {said}"
    return Shown(figure, ok and gap < 1e-6 and truth < 1e-3)


@line("works and is finite on all architectures, or refuses with a reason",
      bar="the contract of every method of these families passes on every architecture")  # fmt: skip
def everywhere(out: Path) -> Shown:
    """Run the contract of what has changed since it was recorded, some methods at a time, for at most SHOW_SECONDS."""
    file = out / "everywhere.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    wanted = {entry.name: state(entry) for entry in delivered() if entry.family in FAMILIES}
    ran = {name for name, one in known.items() if one["passed"] + one["refused"] and one["state"] == wanted.get(name)}
    todo = sorted(wanted.keys() - ran)
    start, limit = time.perf_counter(), float(os.environ.get("SHOW_SECONDS", "900"))
    for first in range(0, len(todo), AT_ONCE):
        if time.perf_counter() - start > limit:
            break
        for name, counts in contract(todo[first : first + AT_ONCE], out / "contract.xml").items():
            known[name] = {"state": wanted[name], "on": time.strftime("%Y-%m-%d")} | counts
        file.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    run = {name: known[name] for name, now in wanted.items() if known.get(name, {}).get("state") == now}
    total = {key: sum(one[key] for one in run.values()) for key in ("passed", "refused", "failed")}
    bad = [name for name, one in run.items() if one["failed"] or not one["passed"] + one["refused"]]
    figure = f"{len(run)} of {len(wanted)} methods run since they or the engine changed, the others come next time; "
    figure += f"{total['passed']} passed, {total['refused']} skipped, {total['failed']} failed (all in everywhere.json)"
    return Shown(figure + (f": {', '.join(bad)}" if bad else ""), not bad and len(run) == len(wanted))


def state(entry: Any) -> str:
    """Return a digest of what a method's contract depends on: its file, the engine, the models and the test."""
    source = ROOT / "src" / "pellucid"
    files = [*(source / "engine").rglob("*.py"), *(source / "models").rglob("*.py"), ROOT / "tests/test_contract.py"]
    files += [*(ROOT / "tests").glob("tiny*.py"), ROOT / "src" / f"{entry.module.replace('.', '/')}.py"]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def contract(names: list[str], report: Path) -> dict[str, dict[str, int]]:
    """Run the contract of some methods on all architectures; return for each how many passed, refused and failed."""
    of_prompts = "tests/test_contract.py::test_gives_what_it_declares_and_changes_nothing"
    of_corpora = "tests/test_contract_of_corpora.py"
    every = "all_architectures or not all_architectures"
    tests(of_prompts, of_corpora, "-m", every, "-k", " or ".join(f"[{name}-" for name in names), f"--junitxml={report}")
    found = {name: {"passed": 0, "refused": 0, "failed": 0} for name in names}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("name", "").partition("[")[2].partition("-")[0]
        how = "refused" if case.find("skipped") is not None else "passed"
        how = "failed" if case.find("failure") is not None or case.find("error") is not None else how
        if name in found:
            found[name][how] += 1
    return found


@line("the patent note of AttnLRP", bar="in `pellucid methods` and on its page, and never chosen by auto")
def patent(out: Path) -> Shown:
    """Read both, and what auto chose."""
    import pellucid
    from pellucid.explain import explain
    from scripts.make_method_pages import page
    from tests import plain

    listed = subprocess.run([sys.executable, "-m", "pellucid", "methods"], capture_output=True, text=True, check=False)
    note = re.sub(r"\s+", " ", listed.stdout)
    written = page(next(entry for entry in delivered() if entry.name == "attn_lrp"))
    chosen = [result.provenance.method for result in explain(pellucid.load(plain.tiny()), plain.IDS).results]
    where = [name for name, text in (("pellucid methods", note), ("its page", written)) if "patented" in text]
    ok = len(where) == 2 and "attn_lrp" not in chosen
    return Shown(f"the note stands in {' and '.join(where) or 'neither'}; auto chose {', '.join(chosen)}", ok)


@line("bench/: AttnLRP against LXT, value zeroing against Inseq, ALTI, DecompX and GlobEnc re-enacted from papers "
      "in plain loops (their authors' code is on no package index), integrated gradients against the floor",
      bar="equal to 1e-3 and >= 1 x LXT; >= 10 x Inseq; equal to 1e-4; at most 1.6 x the floor")  # fmt: skip
def side_by_side(out: Path) -> Shown:
    """Read what `make bench` saved."""
    figures, short = [], []
    names = ("value-zeroing", "value-zeroing-matrix", "alti", "decompx", "globenc")
    for job, equal in (("attn-lrp", 1e-3), *((name, 1e-4) for name in names)):
        ways = [way for one in records(job) if "failed" not in one for way in one["ways"].values()]
        short += [] if ways else [f"{job} was not run"]
        for way in ways:
            median = way["wall"]["median"]
            figures.append(f"{job} {median:.2f} x, differs by {way['agreement']:.0e}")
            short += [f"{job} slower than asked"] if way["bar"] is not None and median < way["bar"] else []
            short += [f"{job} not equal"] if way["agreement"] > equal else []
    for job in ("ig", "ig-span"):
        floors = [(one["model"], one["floor"]["ratio"]["median"]) for one in records(job) if "floor" in one]
        short += [] if floors else [f"{job} was not run"]
        figures += [f"{job} on {model} {ratio:.2f} x the floor" for model, ratio in floors]
        short += [f"{job} on {model} above the floor's bar" for model, ratio in floors if ratio > 1.6]
    return Shown("; ".join([*figures, *(f"short: {text}" for text in short)]), not short)


@line("the truth table of the zoo with these methods in it; a page that says which attribution for which question",
      bar="every method that the table can ask; the page names methods that exist and is in the manual")  # fmt: skip
def manual(out: Path) -> Shown:
    """Look for the methods in docs/truth.md and for the page's methods in the catalogue."""
    from pellucid.core.catalogue import entries
    from pellucid.evaluate._known import questions

    asked = [entry.name for entry in delivered() if questions(entry)]
    table = (ROOT / "docs" / "truth.md").read_text(encoding="utf-8")
    lacking = [name for name in asked if name not in table]
    page = (ROOT / "docs" / "which-attribution.md").read_text(encoding="utf-8")
    known = {entry.name for entry in entries()}
    named = set(re.findall(r"\[`(\w+)`\]\(methods/", page))
    strange = sorted(named - known)
    linked = "which-attribution.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    figure = f"{len(asked) - len(lacking)} of {len(asked)} methods in docs/truth.md; the page names "
    figure += f"{len(named & known)} methods"
    short = [*(f"lacking {name}" for name in lacking), *(f"unknown {name}" for name in strange)]
    short += [] if linked else ["the page is not in mkdocs.yml"]
    return Shown(figure + (f"; {', '.join(short)}" if short else ""), not short)
