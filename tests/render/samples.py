"""Results to look at and to test with: ordinary, long, right-to-left and hostile ones of every kind."""

from __future__ import annotations

import numpy as np

from pellucid.core.results import (
    Evidence,
    Examples,
    Explanation,
    Graph,
    Learned,
    Provenance,
    Result,
    Scores,
    Table,
    Text,
    WeightEdit,
)
from pellucid.core.tokens import Tokens, Units

_PROMPT = (
    "The capital of France is the city where the Seine bends around two islands ; the bridges there are older than the "
    "republic that paid for their repair ."
)
ENGLISH = _PROMPT.split()
HOSTILE = (
    "<script>alert(1)</script>",
    " </style><img src=x onerror=alert(1)>",
    "\"'><b>",
    " [red]bold[/red]",
    "\x1b[31mred\x1b[0m",
    "\ud83d",
    "\udc00",
    "\u202eevil\u202c",
    "\x00",
    "\t",
    "\n",
    "\r\n\n",
    "",
    " ",
    "\u0301",
    " e\u0301\u0323",
    " 👩‍👩‍👧",
    "🏴\U000e0067",
    " 漢字",
    " שלום",
    " &amp;",
    "\u2028",
    "\ufeff",
    "]]>",
    "<!--",
    "javascript:alert(1)",
)
ARABIC = ("عاصمة", " فرنسا", " هي", " مدينة", " باريس", "،", " وهي", " كبيرة", " (", "Paris", ")", ".")
HEBREW = ("<s>", "בירת", " צרפת", " היא", " פריז", " 1789", ".", "\n", "Then", " English", " follows", ".")


def tokens(pieces: tuple[str, ...]) -> Tokens:
    """Return a prompt of the given pieces; the first one is special when it looks so."""
    return Tokens(tuple(range(len(pieces))), pieces, tuple(p == "<s>" for p in pieces), "".join(pieces))


def provenance(method: str = "integrated_gradients", **parameters: object) -> Provenance:
    """Return a filled-in account."""
    return Provenance(
        method,
        parameters or {"steps": 32, "baseline": "zero"},
        "zoo:tiny-lm",
        "main",
        "sha256:0f3a9c",
        (),
        "float32",
        "cpu",
        0,
        {"torch": "2.13.0", "pellucid": "0.1.0"},
        1.284,
        64,
        32,
        ("FAG-3",),
        "arXiv:1703.01365",
    )


def deletion(drop: float = 3.0) -> Evidence:
    """Return a deletion check with the random band."""
    x = np.linspace(0, 1, 11)
    random = 8 * (1 - x) ** 1.1
    curve = 8 * np.exp(-drop * x) * (1 - x) + 0.3 * np.sin(7 * x)
    return Evidence(
        "deletion",
        "Removing the highest units first lowers the logit faster than a random order does (area 2.9 against 3.8).",
        {"area": 2.912, "random": 3.811, "random_std_error": 0.13},
        {
            "x": tuple(x),
            "deletion": tuple(curve),
            "random": tuple(random),
            "random_low": tuple(random - 0.6 * x * (1 - x) * 4),
            "random_high": tuple(random + 0.6 * x * (1 - x) * 4),
        },
        True,
    )


def token_scores(
    pieces: tuple[str, ...], *, method: str = "integrated_gradients", seed: int = 0, error: bool = False
) -> Scores:
    """Return scores of each piece, a few of them large, as they are in life."""
    draw = np.random.default_rng(seed)
    values = draw.standard_t(2, len(pieces)) * 0.2
    return Scores(
        provenance=provenance(method),
        evidence=(deletion(3 + seed),),
        values=values,
        unit="logit",
        tokens=tokens(pieces),
        std_error=np.abs(draw.normal(0, 0.02, len(pieces))) if error else None,
        target='" Paris" rather than " Lyon"',
    )


def english() -> tuple[str, ...]:
    """Return an ordinary prompt."""
    return ("<s>", *(word if i == 0 else f" {word}" for i, word in enumerate(ENGLISH)))


def long(count: int) -> tuple[str, ...]:
    """Return a long prompt with paragraphs."""
    return tuple("\n\n" if i % 97 == 96 else f" {ENGLISH[(i * 7 + i // 13) % len(ENGLISH)]}" for i in range(count))


def matrix(rows: int = 12, columns: int = 8) -> Scores:
    """Return unit x target scores."""
    values = np.random.default_rng(1).normal(0, 0.4, (rows, columns)) ** 3
    return Scores(
        "Which word brings which",
        provenance(),
        values=values,
        axes=("unit", "target"),
        unit="log_prob",
        labels={"target": tuple((" and so it was said" * 2).split(" ")[1 : columns + 1])},
        tokens=tokens(english()[:rows]),
    )


def layers(rows: int = 12, columns: int = 20) -> Scores:
    """Return a layer x position grid with one bright spot."""
    i, j = np.mgrid[0:rows, 0:columns]
    values = (
        3 * np.exp(-((i - 4) ** 2 / 8 + (j - 5) ** 2 / 2))
        + 1.5 * np.exp(-((i - 9) ** 2 / 6 + (j - 18) ** 2 / 2))
        - 0.15
    )
    return Scores(
        "Patching the residual stream",
        provenance("activation_patching", site="resid_pre"),
        values=values,
        axes=("layer", "position"),
        unit="logit",
        tokens=tokens(english()[:columns]),
    )


def heads() -> Scores:
    """Return attention patterns of every head."""
    draw = np.random.default_rng(2)
    values = np.tril(draw.random((3, 4, 9, 9)))
    return Scores(
        "Attention",
        values=values / values.sum(-1, keepdims=True),
        axes=("layer", "head", "query", "key"),
        unit="probability",
        sign="share of attention",
        tokens=tokens(english()[:9]),
    )


def words() -> Scores:
    """Return scores of words, between which there is text that has none."""
    pieces = ("<s>", "The", " cap", "ital", ",", " of", " France")
    return Scores(
        values=np.array([0.5, -1.25, 3.0, 0.0]),
        unit="logit",
        tokens=tokens(pieces),
        units=Units("word", ((1, 2), (2, 4), (5, 6), (6, 7)), ("The", "capital", "of", "France")),
    )


def graph() -> Graph:
    """Return a small circuit."""
    nodes = tuple({"id": f"L{layer}.H{head}", "layer": layer} for layer in range(4) for head in range(3))
    draw = np.random.default_rng(3)
    edges = [
        (i, j) for i in range(12) for j in range(12) if nodes[i]["layer"] < nodes[j]["layer"] and draw.random() < 0.5
    ]
    return Graph(
        "A circuit",
        provenance("edge_attribution"),
        nodes=nodes,
        sources=np.array([e[0] for e in edges]),
        targets=np.array([e[1] for e in edges]),
        weights=draw.normal(0, 1, len(edges)),
        unit="logit",
    )


def explanation(pieces: tuple[str, ...] | None = None) -> Explanation:
    """Return three methods on one question with all their evidence."""
    pieces = pieces or english()
    methods = ("integrated_gradients", "occlusion", "shapley_values")
    agreement = Evidence(
        "agreement",
        "The three methods order the units alike (mean rank correlation 0.71).",
        {
            f"{methods[0]} ~ {methods[1]}": 0.83,
            f"{methods[0]} ~ {methods[2]}": 0.71,
            f"{methods[1]} ~ {methods[2]}": 0.59,
        },
        ok=True,
    )
    residual = Evidence(
        "completeness", "The scores sum to the change of the logit up to 0.4 %.", {"residual": 0.0123}, ok=False
    )
    results = tuple(token_scores(pieces, method=m, seed=i, error=i == 2) for i, m in enumerate(methods))
    return Explanation(
        'Why " Paris" rather than " Lyon"?',
        Provenance(
            "explain",
            {"methods": methods, "budget": None},
            "zoo:tiny-lm",
            "main",
            dtype="float32",
            device="cpu",
            seed=0,
            seconds=4.2,
            forwards=812,
            backwards=64,
        ),
        (agreement, residual),
        results,
        tokens(pieces),
        '" Paris" rather than " Lyon"',
        ((" Paris", 0.6132), (" Lyon", 0.1041), (" the", 0.052), ("\n", 0.0131), (" a", 0.00004)),
        " Paris, the city of light.",
        (
            'methods="auto" chose integrated gradients and occlusion.',
            "The first token is special and is scored like the others.",
        ),
    )


def every_kind() -> dict[str, Result]:
    """Return at least one result of every kind and axis set, by name."""
    curve = Scores(
        "Loss along the path",
        values=np.linspace(2, -1, 9) ** 3,
        axes=("step",),
        unit="logit",
        std_error=np.full(9, 0.4),
    )
    return {
        "english": token_scores(english(), error=True),
        "long": token_scores(long(1200)),
        "arabic": token_scores(ARABIC),
        "hebrew": token_scores(HEBREW),
        "hostile": token_scores(HOSTILE),
        "words": words(),
        "matrix": matrix(),
        "layers": layers(),
        "heads": heads(),
        "big_grid": layers(48, 60),
        "curve": curve,
        "graph": graph(),
        "explanation": explanation(),
        "layer_list": Scores("Layers", values=np.array([0.1, -0.5, np.nan, np.inf]), axes=("layer",), unit="logit"),
        "worded": Scores(
            "What each layer would say",
            values=np.linspace(-9, -0.1, 12).reshape(2, 2, 3),
            unit="log_prob",
            axes=("layer", "head", "position"),
            words=(" Paris", "<script>alert(1)</script>", "\u0645\u0631\u062d", "a\nb") * 3,
        ),
        "worded_list": Scores("One word a layer", values=np.array([1.0, -2.0]), axes=("layer",), words=(" a", "")),
        "single": Scores("One number", values=np.array(0.25), axes=(), unit="logit"),
        "table": Table(
            "Scores of methods",
            columns=("method", "area", "note"),
            rows=(
                ("occlusion", 0.25, "<b>fast</b>"),
                ("shapley", None, "slow\nand sure"),
                ("[red]x", float("nan"), HOSTILE[4]),
            ),
        ),
        "text": Text("In words", text="The model reads <b>France</b>\n\tand [red] recalls \ud800 its capital."),
        "examples": Examples(
            "Nearest training texts",
            items=(
                {"text": "Paris is the capital of France.", "source": 12},
                {"text": HOSTILE[0], "more": [1, 2]},
                {"text": "".join(ARABIC)},
            ),
            values=np.array([0.9, -0.4, 0.1]),
            unit="influence",
        ),
        "learned": Learned(
            "A lens",
            tensors={"weight": np.eye(64, dtype=np.float32), "<i>": np.zeros(3)},
            apply="tuned_lens",
            site="blocks.3.resid_post",
            settings={"epochs": 3},
        ),
        "edit": WeightEdit("A fact changed", deltas={"blocks.5.mlp.down": np.full((8, 8), 0.25)}, weights_hash="ab12"),
        "empty": Scores("Nothing"),
        "zeros": Scores("Zeros", values=np.zeros(3), unit="logit"),
    }
