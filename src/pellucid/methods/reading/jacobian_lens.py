"""The Jacobian lens: each layer's stream carried to the last by the mean slope of what lies between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.axes import Site
from pellucid.core.errors import CapabilityError
from pellucid.core.metadata import method
from pellucid.core.params import Fraction, SiteName
from pellucid.core.results import Evidence, Learned
from pellucid.core.tokens import Tokens
from pellucid.engine.gradients import frozen
from pellucid.engine.lens import last_site, stream_sites
from pellucid.engine.model_head import outputs_of
from pellucid.engine.planning import check_cancelled, report
from pellucid.engine.stored_streams import Streams, held_out, stored_streams
from pellucid.engine.variants import row, token_site, whole
from pellucid.models.edits import Context, Edit
from pellucid.models.forward import forward
from pellucid.models.subject import Subject

DIRECTIONS_AT_ONCE = 64


@method(
    rows=("N-AI7",),
    paper="arXiv:2308.09124",
    takes="corpus",
    produces="learned",
    needs=("activations", "gradients", "logits"),
    cost="2*prompts*F+prompts*dimensions*B",
)
def jacobian_lens(
    subject: Subject, prompts: Sequence[Any], *, site: SiteName = "resid_post", test_share: Fraction = 0.2,
    seed: int = 0,
) -> Learned:  # fmt: skip
    """Learn, for every layer, the mean linear map from the stream to the last stream, from slopes alone.

    J_l = mean over prompts of dh^L / dh^l at the last position, b_l = mean of h^L - J_l h^l with each prompt's own
    slope; the model's head then reads h^l J_l + b_l. An approximation of first order, not fitted to any answer; the
    evidence says on held-out prompts how often it names the model's next token, beside the logit lens (linear
    relational embeddings are this map over prompts of one relation: Hernandez et al. 2023, arXiv:2308.09124).

    Args:
        subject: a decoder, from `pellucid.load`.
        prompts: texts, chats or token ids that end where the token to be read follows.
        site: "resid_pre", "resid_mid" or "resid_post".
        test_share: share of the prompts that only test.
        seed: of the split.

    Returns:
        Learned with `matrices` (J - 1) [layer, dimension, dimension] and `biases` [layer, dimension], for
        `logit_lens(lens=...)`.

    Raises:
        CapabilityError: a model that is no decoder with a language model head.
        InputError: no prompts.
        SiteError: a site that the model lacks.
    """
    if subject.kind != "decoder":
        raise CapabilityError(
            f"jacobian_lens reads the next token, but {subject.name} is an {subject.kind}; load a decoder."
        )
    streams = stored_streams(subject, prompts, site, "jacobian_lens")
    learned, tested = held_out(streams, test_share, np.random.default_rng(seed))
    slopes, rests = torch.zeros(()), torch.zeros(())
    for done, one in enumerate(learned):
        check_cancelled()
        slope = _slopes(subject, one.tokens, site).to(one.end)
        slopes = slopes + slope / len(learned)
        rests = rests + (one.end[-1] - torch.einsum("ld,lde->le", one.layers[:, -1], slope)) / len(learned)
        report(done + 1, len(learned))
    unit = torch.eye(slopes.shape[-1], dtype=slopes.dtype)
    return Learned(
        title="Jacobian lens",
        tensors={"matrices": (slopes - unit).numpy(), "biases": rests.numpy()},
        apply="affine_lens",
        site=site,
        settings={"prompts": len(learned)},
        evidence=(_agreement(subject, tested or learned, slopes, rests, held=bool(tested)),),
    )


def _slopes(subject: Subject, tokens: Tokens, site: str) -> torch.Tensor:
    """Return dh^L / dh^l at the last position of one prompt: [layer, in, out], one forward and d backward rows."""
    names, last = stream_sites(subject, site), last_site(subject)

    def leaf(value: torch.Tensor, context: Context) -> torch.Tensor:
        return value.detach().clone().requires_grad_()

    start = (Edit(token_site(subject), leaf),)
    # Attention that is taken apart can send many directions back at once.
    opened = [str(Site("", layer, "attn.pattern")) for layer in range(len(names))]
    with subject.lock, frozen(subject.model), torch.enable_grad():
        wanted = torch.zeros((1, 1), dtype=torch.long)
        one = [row(subject, tokens, whole(tokens), (), start)]
        output = forward(subject, one, capture=list(dict.fromkeys([*names, last, *opened])), grad=True, wanted=wanted)
        end = output.captured[last][0, -1]
        at = [output.captured[name] for name in names]
        found: list[torch.Tensor] = []
        for rows in torch.eye(len(end)).to(end).split(DIRECTIONS_AT_ONCE):
            grads = torch.autograd.grad(end, at, rows, is_grads_batched=True, retain_graph=True, allow_unused=True)
            found.append(torch.stack([_own(g, rows)[:, 0, -1] for g in grads]))
    subject.count(backwards=len(end))
    return torch.cat(found, 1).transpose(1, 2)


def _own(gradient: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor:
    return rows[:, None, None] if gradient is None else gradient


@torch.no_grad()
def _agreement(
    subject: Subject, streams: Sequence[Streams], slopes: torch.Tensor, rests: torch.Tensor, *, held: bool
) -> Evidence:
    """Return how often each layer's reading is the model's next token, with the lens and without."""
    said = outputs_of(subject, torch.stack([one.end[-1] for one in streams])).argmax(-1)
    inputs = torch.stack([one.layers[:, -1] for one in streams], 1)
    read = torch.baddbmm(rests[:, None], inputs, slopes)
    lens, plain = (
        [float((outputs_of(subject, layer).argmax(-1) == said).double().mean()) for layer in vectors]
        for vectors in (read, inputs)
    )
    return Evidence(
        "agreement with the model",
        f"Behind {len(said)} prompts {'that were not learned from' if held else 'learned from'}, the lens names the "
        f"model's next token in {100 * np.mean(lens):.0f} % of the layers and prompts, the logit lens in "
        f"{100 * np.mean(plain):.0f} %.",
        {"lens": float(np.mean(lens)), "logit_lens": float(np.mean(plain)), "prompts": float(len(said))},
        {"x": tuple(float(i) for i in range(len(lens))), "lens": tuple(lens), "logit lens": tuple(plain)},
    )
