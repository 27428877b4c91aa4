"""Words and numbers that all views share: hostile text made visible, names of entries, lines on cost and evidence."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from pellucid.core.results import Evidence, Provenance, Result, Scores
from pellucid.core.tables import axis_labels
from pellucid.render.colours import largest

# Everything that a terminal or a page would obey instead of showing: controls, line and paragraph separators, bidi
# controls, invisible format characters, tag characters, halves of surrogate pairs, noncharacters.
_OBEYED = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb\ufffe\uffff"
    "\ufdd0-\ufdef\ud800-\udfff\U0001fffe\U0001ffff\U000e0000-\U000e0fff]"
)
_BREAK = re.compile("\r\n|[\n\x0b\x0c\x85\u2028\u2029]")
_RTL = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")
_BEFORE_ISOLATE, _AFTER_ISOLATE = "\u2068", "\u2069"
MISSING = "▫"


def visible(text: str, *, breaks: bool = False) -> str:
    """Return text in which nothing is obeyed: controls become signs, a line break ↵ (and a break, if `breaks`)."""
    if not breaks:
        return _OBEYED.sub(_sign, _BREAK.sub("↵", text))
    return "\n".join(_OBEYED.sub(_sign, line) for line in _BREAK.sub("↵\n", text).split("\n"))


def prose(text: str) -> str:
    """Return longer text with its own line breaks and tabs, everything else that is obeyed made visible."""
    lines = _BREAK.sub("\n", text).split("\n")
    return "\n".join("    ".join(_OBEYED.sub(_sign, part) for part in line.split("\t")) for line in lines)


def label(text: object, limit: int = 60) -> str:
    """Return a name for a table: visible, never empty, at most `limit` characters."""
    shown = visible(str(text))
    if not shown:
        return MISSING
    if not shown.strip(" "):
        return "␠" * min(len(shown), limit)
    if unicodedata.combining(shown[0]):
        shown = "◌" + shown
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def right_to_left(text: str) -> bool:
    """Say whether text holds characters of a right-to-left script."""
    return _RTL.search(text) is not None


def isolated(text: str) -> str:
    """Wrap right-to-left text so that it cannot reorder its neighbours; leave other text alone."""
    return f"{_BEFORE_ISOLATE}{text}{_AFTER_ISOLATE}" if right_to_left(text) else text


def number_format(scale: float, *, digits: int = 4, sign: bool = True) -> Callable[[float], str]:
    """Return a function that writes numbers with equal decimals, so that `scale` shows `digits` significant ones."""
    plus = "+" if sign else ""
    if scale and (scale >= 10**6 or scale < 10**-4):
        return lambda value: _number(value, f"{plus}.{digits - 1}e")
    decimals = max(0, digits - 1 - math.floor(math.log10(scale))) if scale else 1
    return lambda value: _number(value, f"{plus}.{min(decimals, 8)}f")


def common_format(values: Iterable[float]) -> Callable[[float], str]:
    """Return a function that writes several numbers without sign and with equal decimals."""
    return number_format(largest(np.array([float(value) for value in values])), sign=False)


def four_digits(value: float) -> str:
    """Return a number with four significant digits, for numbers of different sizes side by side."""
    return _number(value, ".4g")


def exact(value: float) -> str:
    """Return a number with six significant digits, for the reader who wants more than the table shows."""
    return _number(value, "+.6g")


def plain(value: Any) -> str:
    """Return any value of a table, parameter or item as short visible text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, float):
        return _number(value, ".6g")
    if isinstance(value, np.ndarray):
        return f"array {'×'.join(map(str, value.shape))} {value.dtype}"
    return label(value if isinstance(value, str | int) else repr(value), 400) if value != "" else ""


def title(result: Result) -> str:
    """Return the headline of a result: its own title, else its method, else its kind."""
    target = getattr(result, "target", "")
    if result.title:
        return label(result.title, 200)
    if result.provenance.method:
        return method_name(result.provenance.method)
    return f"Why {label(target, 120)}?" if target and type(result).__name__ == "Explanation" else type(result).__name__


def method_name(method: str) -> str:
    """Return `integrated_gradients` as "Integrated gradients"."""
    return label(method.replace("_", " ").strip().capitalize() or "Result", 120)


def names(scores: Scores, axis: str) -> list[str]:
    """Return one visible name per entry of an axis; layers, heads and the like are their numbers."""
    found = axis_labels(scores, axis)
    size = scores.values.shape[scores.axes.index(axis)]
    return [label(text) for text in found] if found is not None else [str(i) for i in range(size)]


def words_at(scores: Scores, index: tuple[int, ...]) -> tuple[str, ...] | None:
    """Return the words of the entries at one place of the leading axes, in C order; None where there are no words."""
    if scores.words is None:
        return None
    shape = scores.values.shape
    size = int(np.prod(shape[len(index) :]))
    first = int(np.ravel_multi_index(index, shape[: len(index)])) * size if index else 0
    return scores.words[first : first + size]


def segments(scores: Scores, axis: str) -> list[tuple[str, int | None, bool]]:
    """Return the prompt as (raw text, index of the entry that scores it or None, special token?) in reading order."""
    size = scores.values.shape[scores.axes.index(axis)]
    tokens, units = scores.tokens, scores.units if axis in ("unit", "other_unit") else None
    if tokens is not None and units is not None and len(units) == size and _fit(units.spans, len(tokens)):
        parts: list[tuple[str, int | None, bool]] = []
        position = 0
        for index, (start, end) in enumerate(units.spans):
            parts += [(tokens.pieces[p], None, tokens.special[p]) for p in range(position, start)]
            parts.append(("".join(tokens.pieces[start:end]), index, all(tokens.special[start:end])))
            position = end
        return parts + [(tokens.pieces[p], None, tokens.special[p]) for p in range(position, len(tokens))]
    texts = axis_labels(scores, axis) or tuple(str(i) for i in range(size))
    special = tokens.special if tokens is not None and len(tokens) == size else (False,) * size
    joined = any(text[:1].isspace() or text[-1:].isspace() for text in texts)
    parts = []
    for index, text in enumerate(texts):
        if index and not joined:
            parts.append((" ", None, False))
        parts.append((text, index, special[index]))
    return parts


def percent(share: float) -> str:
    """Return a probability as a percentage with two decimals; a tiny one is said to be below 0.01 %."""
    return "nan" if share != share else "< 0.01 %" if 0 < share < 0.00005 else f"{share * 100:.2f} %"


def cost_line(provenance: Provenance, *, short: bool = False) -> str:
    """Return "method · model · dtype on device · seconds · passes" as far as known; `short` gives the last two."""
    where = " on ".join(filter(None, (provenance.dtype, provenance.device)))
    parts = [] if short else [provenance.method, provenance.model, where, "; ".join(provenance.edits)]
    if provenance.seconds:
        parts.append(f"{provenance.seconds:.3g} s")
    if provenance.forwards or provenance.backwards:
        parts.append(f"{_count(provenance.forwards, 'forward')}, {_count(provenance.backwards, 'backward')}")
    return " · ".join(label(part, 120) for part in parts if part)


def evidence_mark(evidence: Evidence) -> str:
    """Return the verdict of a check in words: "✓ ok", "✗ short", or "" where there is no bar."""
    return "" if evidence.ok is None else "✓ ok" if evidence.ok else "✗ short"


def strongest(values: np.ndarray, count: int) -> list[int]:
    """Return the indices of the `count` largest |values| in ascending order of index; NaN counts as 0."""
    strength = np.nan_to_num(np.abs(np.asarray(values, dtype=np.float64)), nan=0.0, posinf=np.inf)
    if strength.size <= count:
        return list(range(strength.size))
    return sorted(np.argsort(-strength, kind="stable")[:count].tolist())


def pairs(values: Sequence[str]) -> list[tuple[str, str]] | None:
    """Return names written "a ~ b" as pairs, or None when some name is not such a pair."""
    split = [tuple(name.split(" ~ ")) for name in values]
    return [(p[0], p[1]) for p in split] if split and all(len(p) == 2 for p in split) else None


def _fit(spans: Sequence[tuple[int, int]], size: int) -> bool:
    return not spans or spans[-1][1] <= size


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code == 9:
        return "⇥"
    if code < 32:
        return chr(0x2400 + code)
    if code == 127:
        return "␡"
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else f"⟨U+{code:04X}⟩"


def _number(value: float, form: str) -> str:
    value = float(value)
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "+inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    written = format(value, form)
    return written if written.strip("+-0.") else written.lstrip("+-")


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
