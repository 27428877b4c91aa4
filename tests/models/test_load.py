"""Loading: names, folders, live models and functions; everything broken is one sentence, at once."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers
import torch
import transformers

import pellucid
from pellucid.core.errors import LayoutError, ModelError
from pellucid.models import saved
from pellucid.models.forward import Row, forward
from pellucid.models.layouts import llama as llama_row
from pellucid.models.load import subject_of
from pellucid.models.subject import Subject
from tests.tiny_encoders import BERT, TINY_ENCODERS, tiny

LLAMA: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100, "max_position_embeddings": 64,
}  # fmt: skip
ROW = Row((5, 17, 33, 8))


def llama() -> Any:
    return tiny("LlamaForCausalLM", "LlamaConfig", **LLAMA)()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Save a small model in shards, so that there is an index to break."""
    llama().save_pretrained(tmp_path / "model", max_shard_size="40KB")
    return tmp_path / "model"


def refused(given: Any, match: str, error: type[Exception] = ModelError, **options: Any) -> str:
    """Check that loading fails with one sentence, at once; return it."""
    start = time.perf_counter()
    with pytest.raises(error, match=match) as caught:
        pellucid.load(given, **options)
    assert time.perf_counter() - start < 10
    text = str(caught.value)
    assert "\n" not in text
    return text


def logits(subject: Subject) -> torch.Tensor:
    return forward(subject, [ROW]).logits


def test_a_folder_and_a_live_model_are_the_same(folder: Path, unchanged: Any) -> None:
    live = pellucid.load(unchanged(llama()))
    for given in (folder, str(folder), os.fspath(folder)):
        subject = pellucid.load(given)
        torch.testing.assert_close(logits(subject), logits(live))
        assert (subject.kind, subject.head, subject.tokenizer, subject.name) == (
            "decoder",
            "causal-lm",
            None,
            str(folder),
        )
        assert subject.weights_hash() == live.weights_hash()
        assert not subject.model.training


@pytest.mark.parametrize(
    "name", ["bert", "bert-classifier", "electra-masked-lm", "modernbert-classifier", "t5", "t5-encoder", "marian"]
)
def test_every_kind_of_head_comes_back_from_its_folder(name: str, tmp_path: Path) -> None:
    model = TINY_ENCODERS[name]()
    model.save_pretrained(tmp_path)
    subject, live = pellucid.load(tmp_path), subject_of(model, None, name=name, proved=False)
    assert type(subject.model) is type(model)
    row = Row(ROW.ids, (2, 3) if live.kind == "encoder-decoder" else ())
    torch.testing.assert_close(forward(subject, [row]).logits, forward(live, [row]).logits)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", torch.float64, "torch.float16", "auto"])
def test_dtypes(folder: Path, dtype: Any) -> None:
    expected = "float32" if dtype == "auto" else str(dtype).removeprefix("torch.")
    assert pellucid.load(folder, dtype=dtype).dtype == expected


def test_wrong_dtypes_and_devices(folder: Path) -> None:
    refused(folder, r"did you mean 'bfloat16'\?", dtype="bfloat15")
    refused(folder, "int8", dtype="int8")
    refused(folder, "'no-such-device'", device="no-such-device")
    refused(folder, "meta", device="meta")
    refused(folder, "contradict", device="cpu", device_map="auto")
    refused(llama(), "prepare a live model yourself", dtype="float64")
    if not torch.cuda.is_available():
        assert "try 'cpu'" in refused(folder, "'cuda'", device="cuda")
        refused(llama(), "'cuda:1'", device=torch.device("cuda:1"))
    assert pellucid.load(folder, device="cpu").device == "cpu"


def test_names_that_are_nowhere() -> None:
    assert "not found" in refused("no-such-model-anywhere", "no-such-model-anywhere")
    refused("some-one/some-model", "in the local cache")
    refused("./no/such/folder", "no folder")
    refused("/no/such/folder", "no folder")
    refused("three words here", "not found|could not be loaded")


def test_a_hub_that_cannot_be_reached_costs_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def unresolved(*_: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(saved.socket, "getaddrinfo", unresolved)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert "cannot be reached" in refused("some-one/some-model", "not found")


def test_models_of_the_zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(saved, "ZOO", tmp_path)
    assert "it has none" in refused("zoo:tiny-lm", "The zoo has no model 'zoo:tiny-lm'")
    llama().save_pretrained(tmp_path / "tiny-lm")
    assert pellucid.load("zoo:tiny-lm").name == "zoo:tiny-lm"
    assert "did you mean 'zoo:tiny-lm'?" in refused("zoo:tinylm", "The zoo has no model")
    assert "did you mean 'zoo:tiny-lm'?" in refused("tiny-lm", "not found")


def test_folders_without_a_model(tmp_path: Path) -> None:
    refused(tmp_path, "no config.json")
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(tmp_path, "holds an adapter")
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    refused(file, "is a file")


def cut(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


BREAKAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a shard is cut": (
        lambda folder: cut(folder / "model-00002-of-00003.safetensors", 0.6),
        "corrupted or half written",
    ),
    "a shard is empty": (
        lambda folder: cut(folder / "model-00001-of-00003.safetensors", 0),
        "corrupted or half written",
    ),
    "a shard is missing": (
        lambda folder: (folder / "model-00002-of-00003.safetensors").unlink(),
        "model-00002-of-00003",
    ),
    "a shard is noise": (
        lambda folder: (folder / "model-00003-of-00003.safetensors").write_bytes(os.urandom(4096)),
        "corrupted",
    ),
    "the index is cut": (lambda folder: cut(folder / "model.safetensors.index.json", 0.5), "corrupted or half written"),
    "the index is missing": (lambda folder: (folder / "model.safetensors.index.json").unlink(), "could not be loaded"),
    "the config is cut": (lambda folder: cut(folder / "config.json", 0.5), "not a valid JSON"),
    "the config is empty": (lambda folder: cut(folder / "config.json", 0), "not a valid JSON"),
    "the config names no model": (lambda folder: (folder / "config.json").write_text("{}"), "model_type"),
    "the config is nonsense": (lambda folder: changed_config(folder, hidden_size="wide"), "hidden_size"),
    "the config has other sizes": (
        lambda folder: changed_config(folder, intermediate_size=48),
        "could not be loaded|lack",
    ),
    "the config has more layers": (lambda folder: changed_config(folder, num_hidden_layers=3), "lack"),
    "the config names another class": (
        lambda folder: changed_config(folder, architectures=["LlamaForTokenClassification"]),
        "head",
    ),
}


def changed_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_broken_files(folder: Path, breakage: str) -> None:
    assert len(list(folder.glob("*.safetensors"))) == 3
    spoil, match = BREAKAGES[breakage]
    spoil(folder)
    refused(folder, match)


def test_a_head_that_was_never_saved_is_not_made_up(tmp_path: Path) -> None:
    TINY_ENCODERS["bert-masked-lm"]().save_pretrained(tmp_path)
    changed_config(tmp_path, architectures=["BertForSequenceClassification"])
    refused(tmp_path, "lack 4 weights of BertForSequenceClassification")
    changed_config(tmp_path, architectures=["BertModel"])
    assert pellucid.load(tmp_path).head == "none"  # a pooler that no output passes through may be missing


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float, tmp_path: Path) -> None:
    model = llama()
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = value
    assert "NaN or infinite" in refused(model, r"'model\.layers\.1\.mlp\.up_proj\.weight'")
    model.save_pretrained(tmp_path)
    refused(tmp_path, "NaN or infinite")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (torch.nn.Linear(3, 3), "not a transformers model"), (torch.nn.Sequential(), "not a transformers model"),
        (transformers.LlamaForCausalLM, "LlamaForCausalLM"), (3, "int"), (None, "NoneType"),
        (SimpleNamespace(model=1, tokenizer=2), "SimpleNamespace"),
    ],
)  # fmt: skip
def test_things_that_are_no_models(given: Any, match: str) -> None:
    refused(given, match)


def test_a_model_that_reads_pictures_is_refused_and_its_text_model_is_not(tmp_path: Path) -> None:
    vision: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "image_size": 8,
        "patch_size": 4,
    }
    llava: Any = transformers.LlavaConfig
    config = llava(
        text_config=transformers.LlamaConfig(**LLAMA),
        vision_config=transformers.CLIPVisionConfig(**vision),
        image_token_id=99,
    )
    model = transformers.LlavaForConditionalGeneration(config).eval()
    refused(model, "pictures")
    assert pellucid.load(model.model.language_model).kind == "decoder"
    model.save_pretrained(tmp_path)
    refused(tmp_path, "pictures")


def test_a_function_is_a_black_box() -> None:
    def scores(texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]

    subject = pellucid.load(scores)
    assert (subject.kind, subject.name, subject.capabilities) == ("black-box", "scores", {"scores"})
    assert (subject.weights_hash(), subject.weights_state(), subject.dtype, subject.device) == ("", (), "none", "none")


def tokenizer() -> Any:
    vocabulary = {"[UNK]": 0, **{f"w{i}": i for i in range(1, 100)}}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")


def test_tokenizers(folder: Path, tmp_path: Path) -> None:
    refused(folder, "tokenizer", tokenizer=str(folder))
    tokenizer().save_pretrained(tmp_path / "tokenizer")
    for given in (tokenizer(), tmp_path / "tokenizer", str(tmp_path / "tokenizer")):
        assert pellucid.load(llama(), given).encode("w5 w17").ids == (5, 17)
    tokenizer().save_pretrained(folder)
    assert pellucid.load(folder).encode("w5 w17").ids == (5, 17)
    cut(folder / "tokenizer.json", 0.5)
    refused(folder, "tokenizer")
    assert pellucid.load(folder, tokenizer()).encode("w5").ids == (5,)


def test_a_layout_may_be_given_and_is_proved() -> None:
    model = llama()
    row = llama_row.layout(model)
    assert subject_of(model, None, name="llama", layout=row).layout is row
    wrong = {**row.stacks[""].taps, "mlp.out": row.stacks[""].taps["attn.out"]}
    stacks = {"": dataclasses.replace(row.stacks[""], taps=wrong)}
    with pytest.raises(LayoutError, match="mend its row"):
        subject_of(model, None, name="llama", layout=dataclasses.replace(row, stacks=stacks))


def test_a_model_that_fails_by_itself_is_not_blamed_on_its_layout() -> None:
    model = tiny("BertModel", "BertConfig", **BERT)()
    model.encoder.layer[1].attention.self.query = torch.nn.Linear(16, 32)
    refused(model, "by itself")
    chunked = tiny("BertModel", "BertConfig", **BERT, chunk_size_feed_forward=2)()
    refused(chunked, "chunk_size_feed_forward")
