"""Every way in which gradients are taken, against finite differences."""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.show import ROOT, Shown, line

STEP = 2.0**-16  # 1 + h and 1 - h have no rounding of their own, whatever type an edit keeps its number in
IDS = [11, 42, 7, 23, 64, 5]
NAMES = ("gpt2", "neox-parallel", "opt", "bert-classifier", "bart")
SITES = (("resid_pre", "position"), ("mlp.post", "neuron"), ("attn.z", "head"), ("attn.z", "head"))
# Where a backward pass may start, and what holds it: differences (below, or in a test), or rules written out in tests.
DIFFERENCES = {
    "engine/backward.py": "gradients at token embeddings, below",
    "engine/site_gradients.py": "gradients at sites, below",
    "engine/patterns.py": "gradients of attention weights, below",
    "methods/attention/hidden_token_attribution.py": "tests/methods/test_hidden_token_attribution.py",
}
OTHERWISE = {
    "engine/relevance.py": "no gradients but relevance, held by rules written out",
    "engine/interception.py": "steps inside relevance",
    "engine/differences.py": "chords inside DeepLIFT, which add up exactly",
    "engine/direct_path.py": "the head as a linear map, whose parts sum to the logit",
    "methods/attention/adversarial_attention.py": "ascent on weights that are learnt, judged by what it reaches",
    "methods/attention/head_gates.py": "training of gates, judged by what it reaches",
}


@contextmanager
def starts() -> Iterator[set[str]]:
    """Collect the files of pellucid in which backward passes start in this context."""
    import torch

    found: set[str] = set()
    grad, backward = torch.autograd.grad, torch.Tensor.backward

    def note() -> None:
        files = [Path(frame.filename) for frame in reversed(traceback.extract_stack())]
        inside = [file for file in files if "pellucid" in file.parts and {"engine", "methods"} & set(file.parts)]
        found.add("/".join(inside[0].parts[inside[0].parts.index("pellucid") + 1 :]) if inside else "?")

    def noted(function: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            note()
            return function(*given, **options)

        return call

    torch.autograd.grad, torch.Tensor.backward = noted(grad), noted(backward)  # type: ignore[method-assign]
    try:
        yield found
    finally:
        torch.autograd.grad, torch.Tensor.backward = grad, backward  # type: ignore[method-assign]


@line("every method that needs gradients takes them in a way that is held", bar="no way but those that are known")
def ways(out: Path) -> Shown:
    """Run every gradient method of the issue and note where its backward passes start."""
    import pellucid
    from pellucid.core.errors import CapabilityError
    from scripts.show.attributing import delivered
    from tests.tiny import TINY

    subjects = [pellucid.load(TINY[name]()) for name in ("llama", "t5")]
    found: dict[str, set[str]] = defaultdict(set)
    wanted = [entry for entry in delivered() if "gradients" in entry.needs and entry.takes in ("prompt", "pair")]
    for entry in wanted:
        given: dict[str, Any] = {"prompt": IDS}
        if entry.takes == "pair":
            given = {"clean": IDS, "corrupt": [11, 42, 8, 23, 64, 5]}
        for subject in subjects:
            with starts() as here:
                try:
                    pellucid.run(entry.name, subject, **given, target=1)
                except CapabilityError:
                    continue
            found[entry.name] |= here
    unknown = {name: sorted(files - {*DIFFERENCES, *OTHERWISE}) for name, files in found.items()}
    unknown = {name: files for name, files in unknown.items() if files}
    by_way = {way: sorted(name for name, files in found.items() if way in files) for way in (*DIFFERENCES, *OTHERWISE)}
    said = "; ".join(
        f"{way} ({len(names)} methods): {DIFFERENCES.get(way) or OTHERWISE[way]}"
        for way, names in by_way.items()
        if names
    )
    lacking = [entry.name for entry in wanted if entry.name not in found]
    ok = not unknown and not lacking and all((ROOT / "src" / "pellucid" / way).exists() for way in by_way)
    return Shown(said + (f"; unknown: {unknown}" if unknown else "") + (f"; not run: {lacking}" if lacking else ""), ok)


@line("finite differences: gradients at embeddings, at sites and of attention weights",
      bar="<= 1e-6 of the largest on architectures that compute in float64 throughout")  # fmt: skip
def differences(out: Path) -> Shown:
    """Scale one place by 1 + h and 1 - h: the change over 2 h is gradient times value."""
    from scripts.show.attributing import tests

    worst, count = 0.0, 0
    measures = [("gpt2", "logit"), ("gpt2", "prob"), *((name, "log_prob") for name in NAMES)]
    sites = [(name, *site) for name, site in zip(NAMES, SITES, strict=False)]
    for name, measure in measures:
        worst, count = max(worst, at_embeddings(name, measure)), count + 1
    for name, site, axis in sites:
        worst, count = max(worst, at_sites(name, site, axis)), count + 1
    said, ok = tests("tests/methods/test_grad_sam.py", "tests/methods/test_attattr.py",
                     "tests/methods/test_hidden_token_attribution.py", "tests/methods/test_gradient_norm.py",
                     "-k", "moving or differences or jacobian")  # fmt: skip
    figure = f"{count} cases, largest gap {worst:.1e}; attention weights, norms and Jacobians: {said}"
    return Shown(figure, ok and worst <= 1e-6)


def at_embeddings(name: str, measure: str) -> float:
    """Return the gap of gradient x input at the token embeddings."""
    import pellucid

    subject, target = _subject(name), pellucid.Target(1, measure=measure)
    site = "encoder.embed.token" if subject.kind == "encoder-decoder" else "embed.token"
    found = pellucid.run("gradient_x_input", subject, IDS, target=target).scores
    return _gap(subject, target, found, [(site, {"position": place}) for place in range(len(IDS))])


def at_sites(name: str, site: str, axis: str) -> float:
    """Return the gap of gradient x activation in the last block, a few places of it."""
    import pellucid

    subject, target = _subject(name), pellucid.Target(1, measure="logit")
    found = pellucid.run("layer_gradient_x_activation", subject, IDS, target=target, site=site).values[-1][:6]
    last = f"blocks.{subject.layers - 1}.{site}"
    return _gap(subject, target, found, [(last, {axis: place}) for place in range(len(found))])


def _subject(name: str) -> Any:
    import pellucid
    from tests.tiny import TINY

    return pellucid.load(TINY[name]().double())


def _gap(subject: Any, target: Any, found: Any, places: list[tuple[str, dict[str, int]]]) -> float:
    """Return the gap between scores and central differences, over the largest score."""
    import numpy as np

    import pellucid
    from pellucid.engine.cone import score_edits
    from pellucid.engine.targets import resolve

    tokens = subject.encode(IDS)
    edits = [(pellucid.Edit(site, "scale", 1 + sign * STEP, place),) for site, place in places for sign in (1, -1)]
    ends = score_edits(subject, tokens, resolve(subject, tokens, target), edits)[:, 0].reshape(-1, 2)
    expected = (ends[:, 0] - ends[:, 1]) / (2 * STEP)
    largest = float(np.abs(expected).max())
    return float(np.abs(found - expected).max()) / largest if largest else float("inf")
