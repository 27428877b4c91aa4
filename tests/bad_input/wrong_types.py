"""Arguments of a wrong type: `python -m tests.bad_input.wrong_types` checks that each is refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pellucid
from pellucid import Target
from pellucid.core.errors import InputError, PellucidError, TargetError
from tests.bad_input.small import PROMPT, language_model, refused

Case = tuple[Callable[[], Any], type[PellucidError], tuple[str, ...]]


def explained(subject: Any, prompt: Any, **options: Any) -> Any:
    return pellucid.explain(subject, prompt, **options)


CASES: dict[str, Case] = {
    "prompt and subject": (lambda: explained(PROMPT, language_model()), InputError, ("subject", "pellucid.load")),
    "a name for a subject": (lambda: explained("zoo:tiny-lm", PROMPT), InputError, ("subject", "pellucid.load")),
    "a bare model": (lambda: explained(language_model().model, PROMPT), InputError, ("subject", "pellucid.load")),
    "no prompt": (lambda: explained(language_model(), None), InputError, ("prompt", "None")),
    "a number for a prompt": (lambda: explained(language_model(), 7), InputError, ("prompt", "7")),
    "an unknown unit": (
        lambda: explained(language_model(), PROMPT, unit="wrod"),
        InputError,
        ("explain", "unit", "did you mean 'word'"),
    ),
    "text to generate": (lambda: explained(language_model(), PROMPT, generate="3"), InputError, ("generate", "'3'")),
    "text for a seed": (lambda: explained(language_model(), PROMPT, seed="x"), InputError, ("seed", "'x'")),
    "a number for methods": (lambda: explained(language_model(), PROMPT, methods=3), InputError, ("methods", "3")),
    "a mapping for a target": (lambda: explained(language_model(), PROMPT, target={"a": 1}), InputError, ("target",)),
    "an unknown measure": (
        lambda: explained(language_model(), PROMPT, target=Target(5, measure="probability")),  # type: ignore[arg-type]
        TargetError,
        ("probability", "did you mean 'prob'"),
    ),
    "an unknown kind": (
        lambda: explained(language_model(), PROMPT, target=Target(5, kind="nxt")),  # type: ignore[arg-type]
        TargetError,
        ("nxt", "did you mean 'next'"),
    ),
}


def main() -> None:
    """Refuse every case; raise where one is not refused well."""
    for name, (call, kind, words) in CASES.items():
        try:
            print(name, "->", refused(call, kind, *words, subject=language_model()))
        except BaseException as error:
            raise AssertionError(name) from error
    print(f"{len(CASES)} refused")


if __name__ == "__main__":
    main()
