"""The jobs of the benchmark: what is asked, how pellucid does it, and the fewest rows that it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bench import fewest
from bench.models import NOISE, REPLACEMENT, SHAPES, Case, Shape, Sizes

SEED_OF_ORDERS = 0


@dataclass(frozen=True)
class Job:
    """One job: its sizes, its peers, what `ours` answers, and the bars that it must reach.

    `bars` maps a peer's way (or "any") to the ratio asked for, `at_most` says that the ratio is ours over theirs.
    `backward` says whether it differentiates (its floor bar is then 1.6, else 1.4), `models` on which shapes it is run.
    """

    name: str
    text: str
    sizes: Sizes
    small: Mapping[str, Any]
    peers: tuple[str, ...]
    bars: Mapping[str, float]
    ours: Callable[[Any, Case], np.ndarray]
    rows: Callable[[Shape, Sizes], fewest.Rows]
    backward: bool = False
    at_most: bool = False
    counted_bar: float | None = None
    models: tuple[str, ...] = SHAPES

    @property
    def floor_bar(self) -> float:
        """Return the largest ratio to the floor that the issue allows."""
        return 1.6 if self.backward else 1.4

    def sized(self, small: bool) -> Sizes:
        """Return the sizes of the table, or those of a smoke run."""
        return replace(self.sizes, **self.small) if small else self.sizes


def _run(name: str, subject: Any, case: Case, **options: Any) -> np.ndarray:
    import pellucid

    return np.asarray(pellucid.run(name, subject, list(case.ids), **options).scores)


def _continuation(case: Case, each: bool) -> Any:
    import pellucid

    return pellucid.Target.continuation(list(case.continuation), each=each)


def integrated_gradients(subject: Any, case: Case) -> np.ndarray:
    """Return scores [tokens] of one logit, from the embedding of the replacement token."""
    steps = case.sizes.steps
    return _run("integrated_gradients", subject, case, target=case.target, baseline=REPLACEMENT, steps=steps)


def span_gradients(subject: Any, case: Case) -> np.ndarray:
    """Return scores [tokens] of the summed log-probability of the continuation."""
    target, steps = _continuation(case, each=False), case.sizes.steps
    return _run("integrated_gradients", subject, case, target=target, baseline=REPLACEMENT, steps=steps)


def gradient_matrix(subject: Any, case: Case) -> np.ndarray:
    """Return scores [tokens, continuation] of each log-probability."""
    return _run("gradient_x_input", subject, case, target=_continuation(case, each=True))


def occlusion(subject: Any, case: Case) -> np.ndarray:
    """Return scores [tokens] of one logit."""
    return _run("occlusion", subject, case, target=case.target, replacement=REPLACEMENT)


def occlusion_matrix(subject: Any, case: Case) -> np.ndarray:
    """Return scores [tokens, continuation] of each log-probability."""
    return _run("occlusion", subject, case, target=_continuation(case, each=True), replacement=REPLACEMENT)


def shapley(subject: Any, case: Case, permutations: int = 0) -> np.ndarray:
    """Return scores [units, continuation] of each log-probability of the target; orders come in antithetic pairs."""
    options = {"permutations": permutations or case.sizes.permutations, "seed": SEED_OF_ORDERS}
    target = _continuation(case, each=True)
    return _run(
        "shapley_values", subject, case, target=target, unit=case.sizes.spans, replacement=REPLACEMENT, **options
    )


def sampled(method: str) -> Callable[[Any, Case], np.ndarray]:
    """Return what scores [units, continuation] of each log-probability by a method that draws variants."""

    def ours(subject: Any, case: Case) -> np.ndarray:
        options = {"samples": case.sizes.samples, "unit": case.sizes.spans, "replacement": REPLACEMENT}
        return _run(method, subject, case, target=_continuation(case, each=True), **options)

    return ours


def of_class_by_units(method: str) -> Callable[[Any, Case], np.ndarray]:
    """Return what scores [units] of class 1, units being left out, by a method that draws variants."""

    def ours(subject: Any, case: Case) -> np.ndarray:
        sizes = case.sizes
        drawn = {"permutations": sizes.permutations} if method == "shapley_values" else {"samples": sizes.samples}
        return _run(method, subject, case, target=1, unit=sizes.spans, replacement="delete", **drawn)

    return ours


def context_cite(subject: Any, case: Case) -> np.ndarray:
    """Return weights [sources] in the settings of the paper; held-out subsets, which its authors lack, are left out."""
    settings = {"samples": case.sizes.samples, "held_out": 0, "penalty": 0.01, "relative": False}
    target = _continuation(case, each=False)
    return _run("context_cite", subject, case, target=target, unit=case.sizes.spans, **settings)


def residual_patching(subject: Any, case: Case) -> np.ndarray:
    """Return effects [layers, tokens] on the difference of two logits."""
    corrupt, targets = list(case.other), {"target": case.target, "contrast": case.contrast}
    return _run("activation_patching", subject, case, corrupt=corrupt, site="resid_pre", **targets)


def head_patching(subject: Any, case: Case) -> np.ndarray:
    """Return effects [layers, heads] of all positions together."""
    asked = {"target": case.target, "contrast": case.contrast, "site": "attn.z", "positions": "all"}
    return _run("activation_patching", subject, case, corrupt=list(case.other), **asked)


def causal_tracing(subject: Any, case: Case) -> np.ndarray:
    """Return mean probabilities [layers, tokens] of the clean answer, where a clean value is restored under noise."""
    import pellucid

    deviation = float(subject.model.get_input_embeddings().weight.detach().float().std())
    found = pellucid.run(
        "causal_tracing", subject, list(case.ids), corrupted=list(range(*case.sizes.subject)),
        site="resid_post" if case.sizes.window == 1 else "mlp.out", window=case.sizes.window,
        noise=NOISE / deviation, samples=len(case.noise), seed=case.seed,
    )  # fmt: skip
    return np.asarray(found.values) + found.evidence[0].values["noisy"]


def window_of(layer: int, layers: int, window: int) -> range:
    """Return the blocks that are restored around a layer."""
    return range(max(0, layer - window // 2), min(layers, layer + (window + 1) // 2))


def capture_sites(subject: Any, case: Case) -> np.ndarray:
    """Capture every site but attention scores and patterns; return the last logits [rows, vocabulary] of those kept."""
    from pellucid.engine.capture import expand
    from pellucid.models.forward import forward
    from pellucid.models.layout import block_sites

    layout = subject.need_layout()
    parts = [site.split(".", 2)[2] for site in block_sites(subject.model, layout, "", 0)]
    wanted = [part for part in parts if part not in ("attn.scores", "attn.pattern")]
    sites = ["embed.token", "embed", *(f"blocks.*.{part}" for part in wanted), "final_norm", "logits"]
    names = [name for site in sites for name in expand(subject, site)]
    output = forward(subject, batch_of(case), capture=names)
    return as_array(output.captured["logits"][:, -1])


def attn_lrp(subject: Any, case: Case) -> np.ndarray:
    """Return relevance [tokens] of one logit."""
    return _run("attn_lrp", subject, case, target=case.target)


def value_zeroing(subject: Any, case: Case) -> np.ndarray:
    """Return scores [tokens], rolled out; no target enters."""
    return _run("value_zeroing", subject, case, target=case.target)


def value_zeroing_matrix(subject: Any, case: Case) -> np.ndarray:
    """Return scores [tokens, continuation], rolled out, read at the position before each token of the continuation."""
    return _run("value_zeroing", subject, case, target=_continuation(case, each=True))


def of_class(method: str) -> Callable[[Any, Case], np.ndarray]:
    """Return what scores [tokens] of class 1 by a method."""
    return lambda subject, case: _run(method, subject, case, target=1)


def batch_of(case: Case) -> list[Any]:
    """Return the case's tokens as rows of one batch."""
    from pellucid.models.forward import Row

    size = case.sizes.tokens
    return [Row(case.ids[row * size : (row + 1) * size]) for row in range(case.sizes.batch)]


JOBS = {
    job.name: job
    for job in (
        Job(
            "ig", "integrated gradients, 50 steps, 64 tokens, one target", Sizes(64, steps=50),
            {"tokens": 12, "steps": 6}, ("captum",), {"any": 1.9}, integrated_gradients,
            lambda shape, size: fewest.path_gradients(shape.layers, size.steps, size.tokens, 0), backward=True,
        ),
        Job(
            "ig-span", "integrated gradients, 20 steps, span score of a 32-token continuation of 64 tokens",
            Sizes(64, 32, steps=20), {"tokens": 12, "continuation": 6, "steps": 4}, ("captum", "inseq"), {"any": 40.0},
            span_gradients, lambda shape, size: fewest.path_gradients(
                shape.layers, size.steps, size.tokens, size.continuation
            ), backward=True,
        ),
        Job(
            "gradient-matrix", "input x gradient, matrix 64 x 32", Sizes(64, 32), {"tokens": 12, "continuation": 6},
            ("inseq",), {"any": 4.0}, gradient_matrix,
            lambda shape, size: fewest.gradient_matrix(shape.layers, size.tokens, size.continuation), backward=True,
        ),
        Job(
            "occlusion", "occlusion of 128 tokens, one target", Sizes(128), {"tokens": 16}, ("captum",), {"any": 4.0},
            occlusion, lambda shape, size: fewest.occlusion(shape.layers, size.tokens, 0),
        ),
        Job(
            "occlusion-matrix", "occlusion of 128 tokens, matrix over a 32-token continuation", Sizes(128, 32),
            {"tokens": 16, "continuation": 5}, ("captum", "inseq"),
            {"one forward": 3.4, "token by token": 20.0, "inseq": 30.0},
            occlusion_matrix, lambda shape, size: fewest.occlusion(shape.layers, size.tokens, size.continuation),
        ),
        Job(
            "shapley", "permutation Shapley, 20 units, 25 permutations, 128 + 32 tokens",
            Sizes(128, 32, units=20, permutations=25),
            {"tokens": 16, "continuation": 5, "units": 4, "permutations": 3}, ("captum", "shap"),
            {"one forward": 4.0, "token by token": 20.0, "shap": 4.0}, shapley, lambda shape, size: fewest.coalitions(
                shape.layers, size.spans, size.permutations, size.continuation, SEED_OF_ORDERS
            ),
        ),
        *(
            Job(
                name, f"{title}, 20 units, 200 variants, 128 + 32 tokens", Sizes(128, 32, units=20, samples=200),
                {"tokens": 16, "continuation": 5, "units": 4, "samples": 16}, peers, {"any": 4.0}, sampled(method),
                lambda shape, size, sizes=sizes: fewest.subsets(
                    shape.layers, size.spans, fewest.drawn(size.units, size.samples, sizes, 0), size.continuation
                ),
            )
            for name, title, method, sizes, peers in (
                ("kernel-shap", "KernelSHAP", "kernel_shap", "kernel", ("shap", "captum")),
                ("lime", "LIME", "lime", "uniform", ("captum",)),
            )
        ),
        *(
            Job(
                f"encoder-{name}", f"{title}, 20 units left out, 128 tokens, class of an encoder",
                Sizes(128, units=20, samples=200, permutations=10, question=8),
                {"tokens": 16, "units": 4, "samples": 16, "permutations": 3, "question": 4}, peers, {"any": 1.7},
                of_class_by_units(method), lambda shape, size, sizes=sizes: fewest.lengths(
                    shape.layers, size.spans, fewest.drawn(size.units, size.samples, sizes, 0), size.question
                ), models=("bert",),
            )
            for name, title, method, sizes, peers in (
                ("kernel-shap", "KernelSHAP, 200 variants", "kernel_shap", "kernel", ("shap", "captum")),
                ("shapley", "permutation Shapley, 10 permutations", "shapley_values", "uniform", ("shap", "captum")),
                ("lime", "LIME, 200 variants", "lime", "uniform", ("captum",)),
            )
        ),
        Job(
            "context-cite", "ContextCite, 64 subsets of 20 sources, 128 + 32 tokens",
            Sizes(128, 32, units=20, samples=64, question=8),
            {"tokens": 16, "continuation": 5, "units": 4, "samples": 16, "question": 4},
            ("context-cite",), {"any": 2.0}, context_cite, lambda shape, size: fewest.subsets(
                shape.layers, size.spans, fewest.drawn(size.units, size.samples, "chance", 0),
                size.continuation, size.question, deleted=True,
            ),
        ),
        Job(
            "residual-patching", "residual patching, 12 layers x 64 positions", Sizes(64), {"tokens": 12},
            ("transformer-lens", "nnsight"), {"transformer-lens": 15.0, "nnsight": 7.0}, residual_patching,
            lambda shape, size: fewest.residual_patches(shape.layers, size.tokens), counted_bar=3.3,
        ),
        Job(
            "head-patching", "all heads, positions together", Sizes(64), {"tokens": 12},
            ("transformer-lens", "nnsight"), {"transformer-lens": 8.0, "nnsight": 4.0}, head_patching,
            lambda shape, size: fewest.head_patches(shape.layers, shape.heads, size.tokens),
        ),
        Job(
            "tracing-1", "causal tracing, 10 noise rows, 12 x 16, window 1", Sizes(16, noise=10, subject=(3, 6)),
            {"noise": 3, "tokens": 8}, ("published",), {"any": 12.0}, causal_tracing,
            lambda shape, size: fewest.causal_tracing(shape.layers, size.tokens, size.noise, size.subject[0], 1),
        ),
        Job(
            "tracing-10", "causal tracing, 10 noise rows, 12 x 16, window 10",
            Sizes(16, noise=10, subject=(3, 6), window=10), {"noise": 3, "tokens": 8}, ("published",), {"any": 5.0},
            causal_tracing,
            lambda shape, size: fewest.causal_tracing(shape.layers, size.tokens, size.noise, size.subject[0], 10),
        ),
        Job(
            "capture", "all sites but scores and patterns captured, 8 x 128 tokens, vs our own plain forward",
            Sizes(128, batch=8), {"tokens": 16, "batch": 3}, ("own",), {"any": 1.25}, capture_sites,
            lambda shape, size: fewest.plain_forward(shape.layers, size.batch, size.tokens), at_most=True,
        ),
        Job(
            "attn-lrp", "AttnLRP of 128 tokens, one logit", Sizes(128), {"tokens": 12}, ("lxt",), {"any": 1.0},
            attn_lrp, lambda shape, size: fewest.path_gradients(shape.layers, 1, size.tokens, 0), backward=True,
            models=("llama",),
        ),
        Job(
            "value-zeroing", "value zeroing of 64 tokens, one target", Sizes(64, 1), {"tokens": 8}, ("inseq",),
            {"any": 10.0}, value_zeroing,
            lambda shape, size: fewest.value_zeroing(shape.layers, size.tokens, shape.heads), models=("llama",),
        ),
        Job(
            "value-zeroing-matrix", "value zeroing, matrix of 64 tokens over an 8-token continuation", Sizes(64, 8),
            {"tokens": 8, "continuation": 3}, ("inseq",), {"any": 10.0}, value_zeroing_matrix,
            lambda shape, size: fewest.value_zeroing(
                shape.layers, size.tokens + size.continuation - 1, shape.heads, size.continuation
            ), models=("llama",),
        ),
        *(
            Job(
                name, f"{title} of 64 tokens in an encoder classifier", Sizes(64), {"tokens": 8}, ("published",), {},
                of_class(name), lambda shape, size: fewest.one_forward(shape.layers, size.tokens), models=("bert",),
            )
            for name, title in (("alti", "ALTI"), ("globenc", "GlobEnc"), ("decompx", "DecompX"))
        ),
    )
}  # fmt: skip


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference over the largest value."""
    return float(np.abs(ours - theirs).max() / max(float(np.abs(theirs).max()), 1e-30))


def no_gradients(model: Any) -> Any:
    """Return the model with gradients of its weights switched off, as a careful user does."""
    return model.requires_grad_(False)


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as float64 on the host."""
    return tensor.detach().double().cpu().numpy()
