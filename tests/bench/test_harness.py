"""The benchmark itself, on tiny models: what is timed is new each time, and agrees with the peers."""

from __future__ import annotations

import json
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import clock, environments, report, run
from bench.jobs import JOBS
from bench.kernels import HAS_FAST
from bench.models import Case, Shape, draw
from bench.pair import CHECK, LEAST_RUNS, SEARCH, WARM, Options, job_floor, measure, sides, take_turns

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = Shape("llama", layers=2, width=48, heads=4, vocabulary=97)
OPTIONS = Options(small=True, seconds=0.0, threads=1)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "PATIENCE", 0.0)
    monkeypatch.setattr("bench.floor.SECONDS", 0.001)


@pytest.mark.slow
@pytest.mark.parametrize(("job", "peer"), [("capture", "own"), ("tracing-1", "published"), ("tracing-10", "published")])
def test_a_pair_is_measured_and_agrees(job: str, peer: str, tmp_path: Path) -> None:
    record = measure(JOBS[job], peer, TINY, OPTIONS)
    [(name, way)] = record["ways"].items()
    assert way["agreement"] < 1e-4
    assert max(way["timed_differences"]) < 1e-4
    assert way["wall"]["runs"] == LEAST_RUNS["llama"]
    assert way["same_kernels"]["runs"] == len(record["runs"]["ours, plain"]["seconds"]) == 1
    assert record["fewest"]["multiply_adds"] <= record["work"]["ours"]["multiply_adds"] * 1.001
    assert way["counted"] > 0.9
    file = tmp_path / "results.json"
    run.merge([record, {"job": "ig", "peer": "captum", "model": "gpt2", "failed": "absent"}], file)
    run.merge([record], file)
    assert len(json.loads(file.read_text(encoding="utf-8"))) == 2
    report.write(file, tmp_path / "RESULTS.md", [("ig", "captum", "gpt2"), ("lime", "shap", "gpt2")])
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert name in page
    assert "ig / captum / gpt2: absent" in page
    assert "Not measured yet: lime / shap / gpt2." in page


def test_a_run_that_time_ended_is_taken_up_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    todo = [("ig", "captum", "gpt2"), ("ig", "captum", "llama"), ("capture", "own", "gpt2")]
    old = {"job": "ig", "peer": "captum", "model": "gpt2", "when": "2026-01-02 03:04", "ways": {}}
    failed = {"job": "ig", "peer": "captum", "model": "llama", "failed": "absent"}
    assert run.oldest_first(todo, [old, failed]) == [todo[1], todo[2], todo[0]]
    file = tmp_path / "results.json"
    run.merge([old], file)
    monkeypatch.setattr(run, "run", lambda *_: pytest.fail("no minutes, no runs"))
    assert run._run_all(todo, [], -1.0, file) == 0
    assert run.read(file) == [old], "what was measured before is kept"
    assert "3 pairs are left" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alti", "globenc", "decompx"])
def test_vectors_in_an_encoder_equal_the_published_loops(name: str) -> None:
    job, bert = JOBS[name], replace(TINY, kind="bert")
    assert job.models == ("bert",)
    record = measure(job, "published", bert, OPTIONS)
    [way] = record["ways"].values()
    assert way["agreement"] < 1e-4
    assert max(way["timed_differences"]) < 1e-4
    assert way["bar"] is None


@pytest.mark.slow
def test_each_timed_run_has_a_new_prompt_and_an_empty_store(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Any, tuple[int, ...]]] = []
    job = JOBS["occlusion"]

    def ours(subject: Any, case: Case) -> np.ndarray:
        seen.append(("ours", subject, case.ids))
        return job.ours(subject, case)

    monkeypatch.setattr("bench.pair.LEAST_RUNS", {"llama": 3})
    both = sides(replace(JOBS["capture"], ours=ours, rows=job.rows, small={"tokens": 8}), "own", TINY, OPTIONS)
    way = replace(both.ways[0], timed_agree=None)
    take_turns(replace(both, ways=[way]), {way.name: 0}, job_floor(both))
    # Before each timed run, a new Subject is warmed up with the prompt that only serves for that.
    warm = draw(replace(both.sizes, tokens=8), TINY, WARM).ids
    timed = [(subject, ids) for _, subject, ids in seen if ids != warm]
    count = 3 + HAS_FAST  # three rounds as it ships; with torch's own products only while there is time, once here
    assert len(timed) == len({ids for _, ids in timed}) == count
    assert len({id(subject) for _, subject, _ in seen}) == count
    apart = {draw(both.sizes, TINY, seed).ids for seed in (CHECK, SEARCH, WARM)}
    assert not apart & {ids for _, ids in timed}


def test_ratios_are_run_by_run_and_scaled() -> None:
    ours, theirs = clock.Times([1.0, 2.0, 4.0]), clock.Times([2.0, 2.0, 2.0])
    found = clock.ratios(theirs, ours, scale=10.0)
    assert (found["median"], found["lowest"], found["highest"]) == (10.0, 5.0, 20.0)
    assert found["coverage"] == 0.75


def test_every_job_names_its_peers_ways() -> None:
    for name, job in JOBS.items():
        for peer in job.peers:
            text = (ROOT / "bench" / "peers" / f"{peer.replace('-', '_')}.py").read_text(encoding="utf-8")
            assert name.replace("-", "_") in text, (name, peer)
    assert run.pairs("ig", None, "gpt2") == [("ig", "captum", "gpt2")]


@pytest.mark.peers
@pytest.mark.parametrize(
    ("job", "peer", "model"), [pair for pair in run.pairs(None, None, None) if pair[1] in environments.PEERS]
)
def test_results_equal_the_peers(job: str, peer: str, model: str) -> None:
    python = environments.python_of(peer)
    if not python.exists():
        pytest.skip(f"bench/.envs/{peer} is absent; python bench/environments.py {peer} makes it")
    command = [str(python), "-m", "bench.pair", "--job", job, "--peer", peer, "--model", model, "--small", "--count"]
    command += ["--layers", "2", "--width", "96", "--threads", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, way in json.loads(done.stdout)["ways"].items():
        assert way["agreement"] < 1e-4, name


@pytest.mark.peers
def test_kept_keys_and_values_are_right_where_captums_are_wrong() -> None:
    captum = pytest.importorskip("captum.attr")
    import captum as package

    import pellucid
    from bench.models import build, text, tokenizer
    from pellucid.engine.question import ask
    from pellucid.engine.scoring import score_plain, score_shared
    from pellucid.engine.variants import remove

    model = build(TINY).double().requires_grad_(False)
    words, case = (
        tokenizer(TINY.vocabulary),
        draw(replace(JOBS["occlusion-matrix"].sizes, tokens=40, continuation=6), TINY, 5),
    )
    target = pellucid.Target.continuation(list(case.continuation), each=True)

    def theirs(**mode: bool) -> np.ndarray:
        method = captum.LLMAttribution(captum.FeatureAblation(model), words)
        given = captum.TextTokenInput(text(case.ids), words, baselines=0)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return method.attribute(given, target=torch.tensor(case.continuation), **mode).token_attr.numpy().T

    subject = pellucid.load(model)
    question = ask(subject, list(case.ids), target=target)
    present = np.concatenate([np.ones((1, 40), dtype=bool), ~np.eye(40, dtype=bool)])
    variants = [remove(subject, question.tokens, question.units, mask, 0) for mask in present]
    cached, uncached = (
        score(subject, question.tokens, question.readout, variants) for score in (score_shared, score_plain)
    )
    np.testing.assert_allclose(cached, uncached, rtol=0, atol=1e-10)
    right = theirs(use_cached_outputs=False)
    scale = np.abs(right).max()
    assert np.abs(cached[:1] - cached[1:] - right).max() < 1e-4 * scale
    assert (
        np.abs(pellucid.run("occlusion", subject, list(case.ids), target=target, replacement=0).scores - right).max()
        < 1e-4 * scale
    )
    if package.__version__ == "0.9.0":
        assert np.abs(theirs(use_cached_outputs=True) - right).max() > 1e-2 * scale
