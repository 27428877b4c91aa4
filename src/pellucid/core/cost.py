"""The price of a method as an expression over named counts, in rows through the model forward (F) and backward (B)."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pellucid.core.errors import InputError, did_you_mean

COUNTS: dict[str, str] = {
    "units": "units of the prompt that are explained",
    "tokens": "tokens of the prompt",
    "targets": "target tokens or classes",
    "options": "answers that are compared",
    "layers": "blocks of the model",
    "heads": "attention heads per block",
    "neurons": "hidden units per feed-forward layer",
    "dimensions": "components of the residual stream",
    "experts": "experts per block",
    "positions": "token positions that are patched or read",
    "edges": "edges of a graph of components",
    "nodes": "nodes of a graph of components",
    "permutations": "sampled orders of the units",
    "samples": "random draws",
    "steps": "steps of a path or an optimisation",
    "rounds": "repetitions",
    "words": "words of the prompt",
    "sentences": "sentences of the prompt",
    "prompts": "prompts",
    "examples": "items of a data set",
    "pairs": "pairs of prompts",
    "vocabulary": "entries of the vocabulary",
    "classes": "output classes",
    "generated": "tokens that are generated",
    "features": "directions of a dictionary",
    "models": "models that are compared",
}
# Counts that a shorter time may lower: they trade precision for time and leave what is measured as it is.
SAMPLED = ("permutations", "rounds", "samples", "steps")


@dataclass(frozen=True)
class _Passes:
    """A number plus so many forward and backward rows."""

    plain: float
    forwards: float = 0.0
    backwards: float = 0.0

    @property
    def pure(self) -> bool:
        return self.forwards == 0 and self.backwards == 0

    def scaled(self, by: float) -> _Passes:
        return _Passes(_times(self.plain, by), _times(self.forwards, by), _times(self.backwards, by))


def _times(left: float, right: float) -> float:
    """Multiply; nothing of something endless is nothing, as in `exact*2**units` where exact is 0."""
    return 0.0 if left == 0 or right == 0 else left * right


def evaluate_cost(expression: str, counts: Mapping[str, Any]) -> tuple[float, float]:
    """Evaluate a cost such as `"steps*(F+B)"` and return (rows forward, rows backward).

    Allowed are numbers, the names in `counts` (True counts as 1), `F`, `B`, `+ - * / // **`, `min`, `max` and
    parentheses; `F` and `B` may only be added and scaled.

    Raises:
        InputError: The expression is not of this form, a name has no count, or the value is not a price.
    """
    try:
        value = _evaluate(_parse(expression).body, expression, counts)
    except ZeroDivisionError:
        raise InputError(f"The cost {expression!r} divides by zero with the counts {dict(counts)}.") from None
    if not all(math.isfinite(part) for part in (value.plain, value.forwards, value.backwards)):
        raise InputError(f"The cost {expression!r} is too large to count with {dict(counts)}.")
    if value.plain:
        raise InputError(
            f"The cost {expression!r} holds {value.plain:g} that is neither F nor B; multiply it by one of them."
        )
    if value.forwards < 0 or value.backwards < 0:
        raise InputError(f"The cost {expression!r} comes out negative with the counts {dict(counts)}.")
    return value.forwards, value.backwards


def cost_names(expression: str) -> frozenset[str]:
    """Return the names of counts that a cost needs; raise `InputError` when it is no arithmetic."""
    tree = _parse(expression)
    for node in ast.walk(tree):
        if isinstance(node, ast.expr) and not isinstance(
            node, ast.Name | ast.Constant | ast.BinOp | ast.UnaryOp | ast.Call
        ):
            raise _strange(expression, node)
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in functions}
    return frozenset(named - {"F", "B"})


def check_cost(expression: str, parameters: Iterable[str]) -> None:
    """Check that a cost is arithmetic over known counts and the parameters of a function; an empty one is unstated."""
    if not expression:
        return
    known = {*COUNTS, *parameters}
    for name in sorted(cost_names(expression) - known):
        raise InputError(
            f"The cost {expression!r} names {name!r}, which is neither a parameter nor a known count"
            f"{did_you_mean(name, known) or '; see pellucid.core.cost.COUNTS'}."
        )


def _parse(expression: str) -> ast.Expression:
    try:
        return ast.parse(expression.strip(), mode="eval")
    except SyntaxError:
        raise InputError(
            f"The cost {expression!r} is not an arithmetic expression; write one such as 'steps*(F+B)'."
        ) from None


def _strange(expression: str, node: ast.AST) -> InputError:
    return InputError(
        f"The cost {expression!r} holds {ast.unparse(node)!r}; only numbers, names, + - * / // **, min, max "
        "and parentheses may stand there."
    )


def _evaluate(node: ast.expr, expression: str, counts: Mapping[str, Any]) -> _Passes:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return _Passes(float(node.value))
    if isinstance(node, ast.Name):
        return _named(node.id, expression, counts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return _evaluate(node.operand, expression, counts).scaled(-1.0 if isinstance(node.op, ast.USub) else 1.0)
    if isinstance(node, ast.BinOp):
        return _combine(
            node, _evaluate(node.left, expression, counts), _evaluate(node.right, expression, counts), expression
        )
    functions: dict[str, Callable[..., float]] = {"min": min, "max": max}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions and node.args:
        values = [_evaluate(argument, expression, counts) for argument in node.args]
        if not node.keywords and all(value.pure for value in values):
            return _Passes(functions[node.func.id]([value.plain for value in values]))
    raise _strange(expression, node)


def _named(name: str, expression: str, counts: Mapping[str, Any]) -> _Passes:
    if name in ("F", "B"):
        return _Passes(0.0, float(name == "F"), float(name == "B"))
    if name not in counts:
        raise InputError(
            f"The cost {expression!r} needs the count {name!r}, but only {sorted(counts)} are given"
            f"{did_you_mean(name, counts)}."
        )
    try:
        return _Passes(float(counts[name]))
    except (TypeError, ValueError):
        raise InputError(f"The cost {expression!r} needs a number for {name!r}, but got {counts[name]!r}.") from None


def _combine(node: ast.BinOp, left: _Passes, right: _Passes, expression: str) -> _Passes:
    if isinstance(node.op, ast.Add | ast.Sub):
        other = right.scaled(-1.0 if isinstance(node.op, ast.Sub) else 1.0)
        return _Passes(left.plain + other.plain, left.forwards + other.forwards, left.backwards + other.backwards)
    if isinstance(node.op, ast.Mult) and (left.pure or right.pure):
        return left.scaled(right.plain) if right.pure else right.scaled(left.plain)
    if isinstance(node.op, ast.Div) and right.pure:
        return left.scaled(1.0 / right.plain)
    if left.pure and right.pure and isinstance(node.op, ast.FloorDiv):
        return _Passes(left.plain // right.plain)
    if (
        left.pure
        and right.pure
        and isinstance(node.op, ast.Pow)
        and (left.plain >= 0 or right.plain == int(right.plain))
    ):
        try:
            return _Passes(left.plain**right.plain)
        except OverflowError:  # `min(samples, 2**units)` is a price also where the prompt is long
            return _Passes(math.inf)
    raise _strange(expression, node)
