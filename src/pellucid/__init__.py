"""pellucid explains transformer language models, each explanation with the evidence for its own faithfulness beside it.

    import pellucid

    subject = pellucid.load("zoo:tiny-lm")
    explanation = pellucid.explain(subject, "The capital of France is")
    explanation.show()

The names below are imported when they are first used, so that importing pellucid costs nothing and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid import zoo as zoo
    from pellucid.core.errors import PellucidError as PellucidError
    from pellucid.core.facts import Fact as Fact
    from pellucid.core.pairs import Pair as Pair
    from pellucid.core.presets import presets as presets
    from pellucid.core.saving import open_result as open
    from pellucid.core.targets import Target as Target
    from pellucid.core.tokens import Units as Units
    from pellucid.engine.live_edits import live as live
    from pellucid.engine.steering import Steering as Steering
    from pellucid.evaluate.over_data.run import evaluate_dataset as evaluate_dataset
    from pellucid.explain import explain as explain
    from pellucid.methods import methods as methods
    from pellucid.methods import run as run
    from pellucid.models.edits import Edit as Edit
    from pellucid.models.load import load as load
    from pellucid.models.subject import Subject as Subject

__version__ = "0.1.0.dev0"

# Public name -> module and attribute; a module alone is itself what the name means.
_PUBLIC = {
    "Edit": ("pellucid.models.edits", "Edit"),
    "Fact": ("pellucid.core.facts", "Fact"),
    "Pair": ("pellucid.core.pairs", "Pair"),
    "PellucidError": ("pellucid.core.errors", "PellucidError"),
    "Steering": ("pellucid.engine.steering", "Steering"),
    "Subject": ("pellucid.models.subject", "Subject"),
    "Target": ("pellucid.core.targets", "Target"),
    "Units": ("pellucid.core.tokens", "Units"),
    "evaluate_dataset": ("pellucid.evaluate.over_data.run", "evaluate_dataset"),
    "explain": ("pellucid.explain", ""),
    "live": ("pellucid.engine.live_edits", "live"),
    "load": ("pellucid.models.load", "load"),
    "methods": ("pellucid.methods", ""),
    "open": ("pellucid.core.saving", "open_result"),
    "presets": ("pellucid.core.presets", "presets"),
    "run": ("pellucid.methods", "run"),
    "zoo": ("pellucid.zoo", ""),
}

__all__ = [
    "Edit",
    "Fact",
    "Pair",
    "PellucidError",
    "Steering",
    "Subject",
    "Target",
    "Units",
    "__version__",
    "evaluate_dataset",
    "explain",
    "live",
    "load",
    "methods",
    "open",
    "presets",
    "run",
    "zoo",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pellucid' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    loaded = importlib.import_module(module)
    value = getattr(loaded, attribute) if attribute else loaded
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *_PUBLIC})
