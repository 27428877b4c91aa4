"""`load`: from a name, a folder, a live model or a function to a proved Subject."""

from __future__ import annotations

import os
from typing import Any

import torch

from pellucid.core.errors import LayoutError, ModelError, PellucidError
from pellucid.models.forward import forward
from pellucid.models.guess import guess_layout
from pellucid.models.layout import Layout, row_layout
from pellucid.models.proofs import probe, prove
from pellucid.models.saved import (
    HEADS,
    check_device,
    check_text_only,
    dtype_of,
    first_line,
    located,
    saved_model,
    saved_tokenizer,
)
from pellucid.models.subject import Subject
from pellucid.models.weights import first_not_finite


def load(
    name_or_path_or_live_model: Any,
    tokenizer: Any = None,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    device_map: Any = None,
    trust_remote_code: bool = False,
) -> Subject:
    """Load a model, find its layout and prove it; numerics and weights are never changed.

    Args:
        name_or_path_or_live_model: a Hugging Face name, a folder, `zoo:NAME` for a bundled model, a live transformers
            (or PEFT) model, or a Python function `list of texts -> numbers` ([texts] or [texts, classes]).
        tokenizer: a live tokenizer or its name; None takes the model's own, where it has one.
        revision: branch, tag or commit on the hub.
        dtype: load in this dtype ("float32", "bfloat16", ...); default: the dtype of the saved weights.
        device: move the model there (a live model, too).
        device_map: an accelerate device map, instead of `device`.
        trust_remote_code: run code from the model's repository.

    Returns:
        A Subject whose layout passed its proofs (see `pellucid check`).

    Raises:
        ModelError: not found, broken or half-written files, NaN weights, a model that is not a transformer or that
            fails by itself.
        LayoutError: the architecture is unknown and could not be guessed and proved.
    """
    given = name_or_path_or_live_model
    check_device(device)
    if device is not None and device_map is not None:
        raise ModelError("load got both device and device_map, which contradict each other; pass one of them.")
    named = isinstance(given, (str, os.PathLike))
    if not named and (dtype is not None or device_map is not None or revision is not None):
        raise ModelError(
            "dtype, device_map and revision are for models loaded by name; prepare a live model yourself, "
            "then pass it without them."
        )
    if isinstance(given, torch.nn.Module):
        model, name = given, _live_name(given)
    elif named:
        name = os.fspath(given)
        options = {"revision": revision, "trust_remote_code": trust_remote_code}
        folder, wanted = located(name), dtype_of(dtype)
        tokenizer = saved_tokenizer(folder, options, wanted=False) if tokenizer is None else tokenizer
        model = saved_model(folder, wanted, device_map, options)
    else:
        return _black_box(given)
    if isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = saved_tokenizer(
            located(os.fspath(tokenizer), "tokenizer_config.json"),
            {"trust_remote_code": trust_remote_code},
            wanted=True,
        )
    if device is not None:
        model = _moved(model, device)
    return subject_of(model, tokenizer, name=name, revision=revision or "")


def _black_box(given: Any) -> Subject:
    if isinstance(given, type) or hasattr(given, "model") or not callable(given):
        kind = given.__name__ if isinstance(given, type) else type(given).__name__
        raise ModelError(
            f"load got {kind}; pass a model name, a folder, a live transformers model or a function of texts."
        )
    name = getattr(given, "__name__", "function")
    return Subject(None, None, None, kind="black-box", head="none", name=name, function=given)


def subject_of(
    model: Any, tokenizer: Any, *, name: str, revision: str = "", layout: Layout | None = None, proved: bool = True
) -> Subject:
    """Wrap a live model: find its layout (or take the one given), prove it, and return the Subject.

    Raises:
        ModelError: not a transformers model, NaN weights, or a kind of model that is not explained.
        LayoutError: no layout was found, or a proof failed.
    """
    model = _native(model)
    check_text_only(model.config, name)
    kind, head = kind_and_head(model)
    _check_weights(model, name)
    found = layout or row_layout(model) or guess_layout(model, kind, head)
    if found is None:
        raise LayoutError(
            f"The architecture {type(model).__name__} ({model.config.model_type}) is unknown and no layout "
            "could be guessed; "
            "write a row like models/layouts/llama.py and pass it to pellucid.models.layout."
        )
    subject = Subject(model, tokenizer, found, kind=kind, head=head, name=name, revision=revision)
    if proved:
        _check_runs(subject)
        prove(subject)
    return subject


def kind_and_head(model: Any) -> tuple[str, str]:
    """Return ("decoder" | "encoder" | "encoder-decoder", "causal-lm" | "masked-lm" | "classification" | "none").

    Raises:
        ModelError: the head is of another kind, such as token classification.
    """
    name = type(model).__name__
    both = bool(getattr(model.config, "is_encoder_decoder", False)) and hasattr(
        getattr(model, "base_model", model), "decoder"
    )
    causal = both or is_causal(model)
    head = next((head for suffix, (_, head) in HEADS.items() if name.endswith(suffix)), None)
    if head is None and getattr(model, "base_model", model) is model:
        head = "none"
    if head is None and "For" not in name and model.get_output_embeddings() is not None:
        head = "causal-lm" if causal else "masked-lm"
    if head is None or (both and head == "classification"):
        raise ModelError(
            f"{name} has a head that pellucid does not explain; pass its base model (model.base_model) instead."
        )
    if both:
        return "encoder-decoder", head
    return "encoder" if head == "masked-lm" or not causal else "decoder", head


def is_causal(model: Any) -> bool:
    """Return whether attention looks backwards only, as the attention modules themselves say; a proof checks it."""
    flags = [m.is_causal for m in model.modules() if isinstance(getattr(m, "is_causal", None), bool)]
    if flags:
        return any(flags)
    return bool(getattr(model.config, "is_decoder", False)) or not hasattr(model.config, "type_vocab_size")


def _native(model: Any) -> Any:
    """Return the transformers model inside compilation and adapter wrappers, where its forward is the whole truth."""
    model = getattr(model, "_orig_mod", model)
    if hasattr(model, "get_base_model"):
        adapters = getattr(model, "peft_config", {}).values()
        if any(getattr(adapter, "is_prompt_learning", False) for adapter in adapters):
            raise ModelError(
                f"The adapter of {_live_name(model)} adds virtual tokens, which no token of the prompt stands for; "
                "pass the base model, or use an adapter such as LoRA."
            )
        model = model.get_base_model()
    if not hasattr(model, "config") or not hasattr(model.config, "model_type"):
        raise ModelError(
            f"{type(model).__name__} is not a transformers model because it has no config; load one, or pass "
            "a function of texts."
        )
    if any(
        getattr(module, "_compiled_call_impl", None) is not None or "_orig_mod" in module._modules
        for module in model.modules()
    ):
        raise ModelError(
            f"Parts of {type(model).__name__} are compiled, and hooks cannot reach inside; load it before "
            "torch.compile."
        )
    if getattr(model.config, "chunk_size_feed_forward", 0):
        raise ModelError(
            f"{type(model).__name__} runs its feed-forward layers in chunks; set "
            "config.chunk_size_feed_forward to 0 and build it anew."
        )
    return model


def _live_name(model: Any) -> str:
    return str(getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__)


def _moved(model: Any, device: Any) -> Any:
    try:
        return model.to(device)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise ModelError(
            f"The model cannot be moved to {str(device)!r}: {first_line(error)}; load it there in the first place."
        ) from error


def _check_weights(model: Any, name: str) -> None:
    bad = first_not_finite(model)
    if bad is not None:
        raise ModelError(f"The weight {bad!r} of {name} holds NaN or infinite values; load an intact copy.")


def _check_runs(subject: Subject) -> None:
    try:
        forward(subject, [probe(subject, 3)])
    except PellucidError:
        raise
    except Exception as error:
        raise ModelError(
            f"{subject.name} itself fails on a short input ({type(error).__name__}: {first_line(error)}); "
            "make the model run by itself first."
        ) from error
