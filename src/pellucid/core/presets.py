"""The conventions of other toolkits as arguments, so that results can be compared with theirs.

Each preset names what that toolkit explains (`measure`), how it turns a hidden gradient into one number per token
(`reduce`), what stands for "absent" (`baseline`, `replacement`), how it scales the scores (`normalise`) and how it
integrates (`quadrature`, `steps`). A method takes those that it has parameters for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pellucid.core.errors import InputError, did_you_mean

PRESETS: dict[str, dict[str, Any]] = {
    "captum": {
        "measure": "log_prob", "reduce": "sum", "normalise": "none", "baseline": "zero", "replacement": 0,
        "quadrature": "gauss_legendre", "steps": 50,
    },
    # Inseq replaces by the unknown token where the tokenizer has one, else by padding; recent decoders have none.
    "inseq": {
        "measure": "prob", "reduce": "l2", "normalise": "sum", "baseline": "pad", "replacement": "pad",
        "quadrature": "gauss_legendre", "steps": 50,
    },
    "ferret": {
        "measure": "logit", "reduce": "sum", "normalise": "l1", "baseline": "pad", "replacement": "pad",
        "quadrature": "gauss_legendre", "steps": 50,
    },
    "interpreto": {
        "measure": "logit", "reduce": "abs_mean", "normalise": "none", "baseline": "zero", "quadrature": "trapezoid",
        "steps": 10,
    },
    "transformers-interpret": {
        "measure": "prob", "reduce": "sum", "normalise": "l2", "baseline": "pad", "quadrature": "gauss_legendre",
        "steps": 50,
    },
    "ecco": {"measure": "prob", "reduce": "l2", "normalise": "sum", "baseline": "zero", "quadrature": "gauss_legendre",
             "steps": 50},
    "lxt": {"measure": "logit", "reduce": "sum", "normalise": "none"},
    "zennit": {"reduce": "sum", "normalise": "none"},
    # SHAP explains the log-odds of a token, which no measure names: pass Target.function for that part.
    "shap": {"normalise": "none", "replacement": "mask"},
    "lime": {"measure": "prob", "normalise": "none", "replacement": "delete", "unit": "word"},
}  # fmt: skip


def presets(peer: str, parameters: Mapping[str, Any] | tuple[str, ...] | None = None) -> dict[str, Any]:
    """Return the arguments that reproduce a toolkit's conventions, restricted to `parameters` if given.

    Args:
        peer: The toolkit's name, a key of `PRESETS`.
        parameters: The names that the method knows; None returns the whole preset.

    Raises:
        InputError: The toolkit is unknown.
    """
    if peer not in PRESETS:
        hint = did_you_mean(peer, PRESETS) or f"; use one of {', '.join(sorted(PRESETS))}"
        raise InputError(f"There is no preset {peer!r}{hint}.")
    return {key: value for key, value in PRESETS[peer].items() if parameters is None or key in parameters}
