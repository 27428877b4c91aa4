"""Models and tokenizers from files: a folder, a bundled model or the hub; every failure is one sentence."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import huggingface_hub.constants
import torch
import transformers
from safetensors import SafetensorError
from transformers.utils import logging

import pellucid.models.constructed  # noqa: F401 - makes the project's own architecture known to transformers
from pellucid.core.errors import ModelError, did_you_mean

HEADS = {
    "ForCausalLM": ("AutoModelForCausalLM", "causal-lm"),
    "LMHeadModel": ("AutoModelForCausalLM", "causal-lm"),
    "ForConditionalGeneration": ("AutoModelForSeq2SeqLM", "causal-lm"),
    "MTModel": ("AutoModelForSeq2SeqLM", "causal-lm"),
    "ForMaskedLM": ("AutoModelForMaskedLM", "masked-lm"),
    "ForSequenceClassification": ("AutoModelForSequenceClassification", "classification"),
}
DTYPES = ("float32", "float64", "float16", "bfloat16")
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model", "*.spm", "*.tiktoken")
ZOO = Path(__file__).parent.parent / "zoo" / "models"


def located(name: str, file: str = "config.json") -> str:
    """Return the folder of a bundled or local model, or the name itself where it can only be one on the hub.

    A folder has to hold `file`.

    Raises:
        ModelError: no such bundled model or folder, or a folder without a model.
    """
    bundled = sorted(f"zoo:{file.parent.relative_to(ZOO).as_posix()}" for file in ZOO.glob("**/config.json"))
    if name.startswith("zoo:"):
        if name not in bundled:
            raise ModelError(
                f"The zoo has no model {name!r}{did_you_mean(name, bundled) or f'; it has {_listed(bundled)}'}."
            )
        return str(ZOO / name.removeprefix("zoo:"))
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / file).exists():
            return str(folder)
        if (folder / "adapter_config.json").exists():
            raise ModelError(
                f"{name!r} holds an adapter, not a model; load its base model, add the adapter with peft and "
                "pass the live model."
            )
        raise ModelError(f"The folder {name!r} has no {file}; pass a folder that save_pretrained has written.")
    if folder.is_file():
        raise ModelError(f"{name!r} is a file; pass the folder of a saved model.")
    if folder.is_absolute() or name.startswith(("~", ".")) or name.count("/") > 1:
        raise ModelError(f"There is no folder {name!r}; check the path, or pass the name of a model on the hub.")
    return name


def dtype_of(dtype: str | torch.dtype | None) -> Any:
    """Return what `from_pretrained` takes as dtype; None means the dtype of the saved weights."""
    if dtype is None or dtype == "auto":
        return "auto"
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(
            f"The dtype {str(dtype)!r} is not one to load "
            f"in{did_you_mean(str(dtype), DTYPES) or f'; use one of {_listed(DTYPES)}'}."
        )
    return found


def check_device(device: str | torch.device | None) -> None:
    """Raise `ModelError` where a device is unknown or absent, before anything is loaded."""
    if device is None:
        return
    try:
        if torch.device(device).type == "meta":
            raise RuntimeError("a meta device holds no values")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ModelError(f"The device {str(device)!r} cannot be used here ({first_line(error)}); try 'cpu'.") from error


def saved_model(name: str, dtype: Any, device_map: Any, options: dict[str, Any]) -> Any:
    """Load a model from a folder or the hub, in evaluation mode, with every weight found in its files.

    Raises:
        ModelError: not found, corrupted, half written, lacking weights, or of a kind that is not explained.
    """
    options = {**options, **({} if Path(name).is_dir() or hub_reachable() else {"local_files_only": True})}
    extra = {"dtype": dtype, **({"device_map": device_map} if device_map is not None else {})}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **options)
        check_text_only(config, name)
        with _quiet(Path(name).is_dir()):
            model, report = _class_for(config).from_pretrained(name, output_loading_info=True, **extra, **options)
    except ModelError:
        raise
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError, EOFError) as error:
        raise ModelError(
            f"The files of {name} are corrupted or half written ({first_line(error)}); download or save the "
            "model again."
        ) from error
    except Exception as error:
        raise ModelError(_not_loaded(name, error)) from error
    missing = [key for key in report["missing_keys"] if "pooler." not in key or _has_head(model)]
    if missing:
        raise ModelError(
            f"The files of {name} lack {len(missing)} weights of {type(model).__name__}, the first being "
            f"{min(missing)!r}, which would be random; "
            "download or save the model again, or load it as the class it was saved from and pass the live model."
        )
    return model.eval()


@contextmanager
def _quiet(local: bool) -> Iterator[None]:
    """Keep the progress bar of transformers away while a folder is read; downloads keep theirs."""
    shown = logging.is_progress_bar_enabled()
    if local:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if local and shown:
            logging.enable_progress_bar()


def saved_tokenizer(name: str, options: dict[str, Any], *, wanted: bool) -> Any:
    """Load the tokenizer beside a model; return None where the model has none, unless one is `wanted`.

    Raises:
        ModelError: its files are broken, or it is wanted and not there.
    """
    local = Path(name).is_dir()
    there = local and any(found for pattern in TOKENIZER_FILES for found in Path(name).glob(pattern))
    if local and not there and not wanted:
        return None  # some families would make up an empty tokenizer
    options = {**options, **({} if local or hub_reachable() else {"local_files_only": True})}
    try:
        return transformers.AutoTokenizer.from_pretrained(name, **options)
    except Exception as error:  # tokenizer libraries raise plain Exceptions for broken files
        if wanted or (there if local else not isinstance(error, OSError)):
            raise ModelError(
                f"The tokenizer of {name!r} could not be loaded ({first_line(error)}); mend its files or pass "
                "a live tokenizer."
            ) from error
        return None


def check_text_only(config: Any, name: str) -> None:
    """Raise `ModelError` for models that read more than text."""
    for part, what in (("vision_config", "pictures"), ("audio_config", "sound"), ("speech_config", "sound")):
        if getattr(config, part, None) is not None:
            raise ModelError(
                f"{name} ({config.model_type}) reads {what} as well as text, which pellucid does not explain; "
                "load its text model alone with transformers and pass the live model."
            )


def hub_reachable() -> bool:
    """Return False where the hub's name cannot be resolved, so that nobody waits through its retries."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    try:
        socket.getaddrinfo(urlparse(huggingface_hub.constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text without its full stop, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(" .:") if lines else type(error).__name__


def _class_for(config: Any) -> Any:
    architecture = (config.architectures or [""])[0].replace("ForPreTraining", "ForMaskedLM")
    auto = next((auto for suffix, (auto, _) in HEADS.items() if architecture.endswith(suffix)), None)
    if auto is None and architecture and not architecture.endswith("Model"):
        raise ModelError(
            f"The saved model is a {architecture}, whose head pellucid does not explain; load its base with "
            "transformers.AutoModel "
            "and pass the live model."
        )
    # The class itself keeps what an automatic class may leave out, such as an encoder without its decoder.
    exact = None if getattr(config, "auto_map", None) else getattr(transformers, architecture, None)
    return exact or getattr(transformers, auto or "AutoModel")


def _has_head(model: Any) -> bool:
    return any(type(model).__name__.endswith(suffix) for suffix in HEADS)


def _not_loaded(name: str, error: Exception) -> str:
    if isinstance(error, OSError) and not Path(name).is_dir():
        offline = "in the local cache (the hub cannot be reached from here)"
        where = "in the local cache or on the hub" if hub_reachable() else offline
        hint = did_you_mean(f"zoo:{name}", [f"zoo:{file.parent.name}" for file in ZOO.glob("*/config.json")])
        return f"The model {name!r} was not found {where}{hint or '; check the name, or pass a folder.'}"
    return (
        f"The model {name!r} could not be loaded: {first_line(error)}; "
        "check its files, or load it with transformers and pass the live model."
    )


def _listed(names: Any) -> str:
    return ", ".join(names) or "none"
