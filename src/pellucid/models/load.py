"""`load`: from a name, a folder, a live model or a function to a proved Subject."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from pellucid.core.errors import LayoutError, ModelError
from pellucid.models.guess import guess_layout
from pellucid.models.layout import Layout, row_layout
from pellucid.models.proofs import prove
from pellucid.models.subject import Subject

HEADS = {
    "ForCausalLM": ("AutoModelForCausalLM", "causal-lm"),
    "LMHeadModel": ("AutoModelForCausalLM", "causal-lm"),
    "ForConditionalGeneration": ("AutoModelForSeq2SeqLM", "causal-lm"),
    "MTModel": ("AutoModelForSeq2SeqLM", "causal-lm"),
    "ForMaskedLM": ("AutoModelForMaskedLM", "masked-lm"),
    "ForSequenceClassification": ("AutoModelForSequenceClassification", "classification"),
}


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
        name_or_path_or_live_model: a Hugging Face name, a folder, `zoo:NAME` for a bundled model, a live transformers (or PEFT) model,
            or a Python function `list of texts -> numbers` ([texts] or [texts, classes]).
        tokenizer: a live tokenizer or its name; None takes the model's own, where it has one.
        revision: branch, tag or commit on the hub.
        dtype: load in this dtype ("float32", "bfloat16", ...); default: the dtype of the saved weights.
        device: move the model there.
        device_map: an accelerate device map, instead of `device`.
        trust_remote_code: run code from the model's repository.

    Returns:
        A Subject whose layout passed its proofs (see `pellucid check`).

    Raises:
        ModelError: not found, broken or half-written files, NaN weights, a model that is not a transformer.
        LayoutError: the architecture is unknown and could not be guessed and proved.
    """
    given = name_or_path_or_live_model
    if isinstance(given, torch.nn.Module):
        model, name = given, _live_name(given)
    elif callable(given):
        return Subject(None, None, None, kind="black-box", head="none", name=getattr(given, "__name__", "function"), function=given)
    elif isinstance(given, (str, os.PathLike)):
        name = str(given)
        folder = _zoo_folder(name)
        options = {"revision": revision, "trust_remote_code": trust_remote_code}
        model = _from_files(folder, dtype, device_map, options)
        tokenizer = _tokenizer(folder if tokenizer is None else tokenizer, options)
    else:
        raise ModelError(f"load got a {type(given).__name__}; pass a model name, a folder, a live transformers model or a function.")
    if isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = _tokenizer(str(tokenizer), {"trust_remote_code": trust_remote_code})
    if device is not None:
        model = model.to(device)
    return subject_of(model, tokenizer, name=name, revision=revision or "")


def subject_of(model: Any, tokenizer: Any, *, name: str, revision: str = "", layout: Layout | None = None, proved: bool = True) -> Subject:
    """Wrap a live model: find its layout (or take the one given), prove it, and return the Subject."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not hasattr(model, "config"):
        raise ModelError(f"{type(model).__name__} is not a transformers model because it has no config; load one, or pass a function of texts.")
    _check_weights(model, name)
    kind, head = kind_and_head(model)
    found = layout or row_layout(model) or guess_layout(model)
    if found is None:
        raise LayoutError(
            f"The architecture {type(model).__name__} ({model.config.model_type}) is unknown and no layout could be guessed; "
            "write a row like models/layouts/llama.py and pass it to pellucid.models.layout."
        )
    subject = Subject(model, tokenizer, found, kind=kind, head=head, name=name, revision=revision)
    if proved:
        prove(subject)
    return subject


def kind_and_head(model: Any) -> tuple[str, str]:
    """Return ("decoder" | "encoder" | "encoder-decoder", "causal-lm" | "masked-lm" | "classification" | "none")."""
    config, name = model.config, type(model).__name__
    head = next((head for suffix, (_, head) in HEADS.items() if name.endswith(suffix)), "none")
    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder", head
    if head == "masked-lm" or not is_causal(model):
        return "encoder", head
    return "decoder", head


def is_causal(model: Any) -> bool:
    """Return whether attention looks backwards only, as the attention modules themselves say."""
    flags = [m.is_causal for m in model.modules() if isinstance(getattr(m, "is_causal", None), bool)]
    if flags:
        return any(flags)
    return bool(getattr(model.config, "is_decoder", False)) or not hasattr(model.config, "type_vocab_size")


def _live_name(model: Any) -> str:
    return str(getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__)


def _zoo_folder(name: str) -> str:
    if not name.startswith("zoo:"):
        return name
    folder = Path(__file__).parent.parent / "zoo" / "models" / name.removeprefix("zoo:")
    if not (folder / "config.json").exists():
        have = sorted(f"zoo:{p.parent.relative_to(folder.parent)}" for p in folder.parent.glob("**/config.json"))
        raise ModelError(f"The zoo has no model {name!r}; it has {', '.join(have) or 'none'}.")
    return str(folder)


def _from_files(name: str, dtype: Any, device_map: Any, options: dict[str, Any]) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(name, **options)
        architecture = (config.architectures or [""])[0]
        auto = next((auto for suffix, (auto, _) in HEADS.items() if architecture.endswith(suffix)), "AutoModel")
        if getattr(config, "vision_config", None) is not None:
            raise ModelError(f"{name} reads pictures as well as text, which pellucid does not explain yet; load its text model alone.")
        extra = {"dtype": dtype or "auto", **({"device_map": device_map} if device_map is not None else {})}
        return getattr(transformers, auto).from_pretrained(name, **extra, **options).eval()
    except (SafetensorError, json.JSONDecodeError, EOFError) as error:
        raise ModelError(f"The files of {name} are corrupted or half written ({error}); download or save the model again.") from error
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"The model {name!r} could not be loaded: {first}") from error


def _tokenizer(name: Any, options: dict[str, Any]) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError):
        return None


def _check_weights(model: Any, name: str) -> None:
    for parameter_name, parameter in model.named_parameters():
        if parameter.device.type != "meta" and parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            raise ModelError(f"The weight {parameter_name!r} of {name} holds NaN or infinite values; load an intact copy.")


