"""Results that are put into the store before the server starts: long ones, and kinds that no quick method gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pellucid.core.results import Evidence, Examples, Graph, Provenance, Result, Scores, Table, Text
from pellucid.core.tokens import Tokens
from pellucid.store import Store

HOSTILE = "<script>window.broken=1</script><img src=x onerror=window.broken=1>"


def _tokens(count: int) -> Tokens:
    pieces = tuple(f" word{i}" for i in range(count))
    return Tokens(ids=tuple(range(count)), pieces=pieces, special=(False,) * count, text="".join(pieces))


def _graph() -> Graph:
    nodes = tuple({"id": f"n{i}", "label": HOSTILE if i == 0 else f"node {i}", "layer": i // 4} for i in range(16))
    edges = [(a, b) for a in range(16) for b in range(16) if nodes[b]["layer"] == nodes[a]["layer"] + 1]
    weights = np.cos(np.arange(len(edges)) * 0.7)
    return Graph(
        title="A saved graph",
        nodes=nodes,
        sources=np.array([a for a, _ in edges]),
        targets=np.array([b for _, b in edges]),
        weights=weights,
        unit="logit",
    )


def samples() -> dict[str, Result]:
    """Return the results by name."""
    rng = np.random.default_rng(0)
    found: dict[str, Result] = {}
    for count in (1000, 4000):
        tokens = _tokens(count)
        found[f"tokens {count}"] = Scores(
            values=rng.normal(size=count), axes=("position",), unit="logit", tokens=tokens,
            provenance=Provenance(method="occlusion"),
        )  # fmt: skip
        found[f"grid {count}"] = Scores(
            values=rng.normal(size=(24, count)), axes=("layer", "position"), unit="logit", tokens=tokens,
            provenance=Provenance(method="logit_lens"),
        )  # fmt: skip
    found["heads 1000"] = Scores(
        values=rng.random((3, 1000, 1000), dtype=np.float32), axes=("head", "query", "key"), unit="attention",
        sign="larger means more", tokens=_tokens(1000), provenance=Provenance(method="attention_views"),
    )  # fmt: skip
    found["graph"] = _graph()
    found["curve"] = Scores(
        values=np.linspace(1, 0, 11) ** 2, axes=("fraction",), unit="prob", std_error=np.full(11, 0.03),
        labels={"fraction": tuple(f"{i / 10:.1f}" for i in range(11))},
    )  # fmt: skip
    found["table"] = Table(columns=("name", "value"), rows=((HOSTILE, 3.5), ("b", 1.25), ("c", 2.0)))
    found["text"] = Text(text=f"The model copies the name. {HOSTILE}")
    found["examples"] = Examples(items=({"text": "one"}, {"text": HOSTILE}), values=np.array([0.5, -0.25]))
    check = Evidence("deletion", "Removing lowers it.", {"area": 0.5}, {"x": (0.0, 1.0), "method": (1.0, 0.0)}, ok=True)
    return {name: result.with_evidence(check) if name == "curve" else result for name, result in found.items()}


def fill(path: Path) -> dict[str, str]:
    """Put the samples into the store at `path`; return the id of each."""
    with Store.open(path) as store:
        return {name: str(store.add(result, "upload", {"upload": True})) for name, result in samples().items()}
