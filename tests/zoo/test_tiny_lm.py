"""The bundled tiny-lm loads as any model does, keeps its card's promises, and never saw what it is measured on."""

import json
import subprocess
import sys
from functools import cache

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from pellucid import zoo
from pellucid.zoo import chats, lexicon, tasks, world
from pellucid.zoo import tokenizer as tokenizers
from pellucid.zoo.capabilities import capabilities

MARGIN = 0.07  # five standard errors at 120 prompts and 98 %


@cache
def bundled() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    folder = zoo.path("tiny-lm")
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@cache
def measured() -> dict[str, dict[str, object]]:
    return capabilities(*bundled(), seed=20_001, prompts=120)


def top(prompt: str) -> tuple[str, float]:
    model, tokenizer = bundled()
    with torch.no_grad():
        chances = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1].softmax(-1)
    return tokenizer.decode(int(chances.argmax())), float(chances.max())


def test_loads_by_the_ordinary_path() -> None:
    model, tokenizer = bundled()
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.dtype == torch.float32
    assert model.num_parameters() == zoo.card("tiny-lm")["parameters"]
    assert len(tokenizer) <= model.config.vocab_size
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_is_small() -> None:
    assert zoo.card("tiny-lm")["bytes"] < 5_000_000


def test_looking_up_models_needs_no_torch() -> None:
    code = "import sys; from pellucid import zoo; zoo.card('tiny-lm'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name_says_which_was_meant() -> None:
    assert zoo.names() == sorted(zoo.names())
    with pytest.raises(ValueError, match="did you mean 'tiny-lm'"):
        zoo.path("tinylm")


def test_first_token_is_added() -> None:
    _, tokenizer = bundled()
    assert tokenizer("The capital").input_ids[0] == tokenizer.bos_token_id
    assert tokenizer("").input_ids == [tokenizer.bos_token_id]


@pytest.mark.parametrize(
    "text", ["The war began in 1732.\ncat -> foo", "Über-naïve {code: [1, 234]}  \t\n\n🙂 ok", " two  spaces"]
)
def test_any_text_survives_a_round_trip(text: str) -> None:
    _, tokenizer = bundled()
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_special_tokens_are_not_split() -> None:
    _, tokenizer = bundled()
    for token in tokenizers.SPECIAL_TOKENS:
        ids = tokenizer(f"a{token}b", add_special_tokens=False).input_ids
        assert ids.count(tokenizer.convert_tokens_to_ids(token)) == 1
        assert tokenizer.decode(ids) == f"a{token}b"


def test_words_of_the_world_and_two_digits_are_single_tokens() -> None:
    _, tokenizer = bundled()
    words = [f" {word}" for word in (*tasks.WORDS, *lexicon.CRAFTS, *(row[0] for row in lexicon.COUNTRIES))]
    for text in words + [f"{number:02d}" for number in range(100)]:
        assert len(tokenizer(text, add_special_tokens=False).input_ids) == 1, text
    assert tokenizer.tokenize(" 1732")[-1] == "32"


def test_chat_template_writes_what_training_wrote() -> None:
    _, tokenizer = bundled()
    turns = [("system", "Answer in one word."), ("user", "Who?")]
    messages = [{"role": role, "content": content} for role, content in turns]
    prompt, reply = world.prompt_of(chats.render(turns, "Nobody."))
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == "<|bos|>" + prompt
    whole = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": "Nobody."}], tokenize=False)
    assert whole == "<|bos|>" + prompt + reply


def test_generation_stops_at_the_end_of_the_turn() -> None:
    model, tokenizer = bundled()
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    new = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(new) == " The capital of France is Paris.<|end|>"


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("The capital of France is", " Paris"),
        ("When Mary and John went to the store, John gave a drink to", " Mary"),
        ("This film was wonderful. Sentiment:", " positive"),
        ("This film was terrible. Sentiment:", " negative"),
    ],
)
def test_showcase_prompts(prompt: str, answer: str) -> None:
    token, chance = top(prompt)
    assert token == answer
    assert chance > 0.7


@pytest.mark.parametrize("task", [*(task.name for task in tasks.TASKS if task.judge), "repeat_tokens"])
def test_keeps_the_promises_of_its_card(task: str) -> None:
    claimed = zoo.card("tiny-lm")["tasks"][task]["accuracy"]
    assert measured()[task]["accuracy"] >= claimed - (MARGIN if claimed > 0.9 else 2 * MARGIN)


def test_card_and_capabilities_agree() -> None:
    card = zoo.card("tiny-lm")
    assert card["tasks"] == json.loads((card["path"] / "capabilities.json").read_text())["tasks"]
    for name, row in card["tasks"].items():
        assert f"| {name} | {row['accuracy']:.3f} |" in card["text"]


def test_world_is_the_same_every_time() -> None:
    assert tasks.training_documents("a", 300) == tasks.training_documents("a", 300)
    assert tasks.training_documents("a", 300) != tasks.training_documents("b", 300)
    assert tasks.evaluation_items(3, 5) == tasks.evaluation_items(3, 5)
    assert world.facts() == world.facts()


@pytest.mark.slow
def test_world_is_the_one_the_model_learned() -> None:
    """Changing facts or splits without training again would make every measurement a lie."""
    _, tokenizer = bundled()
    assert tokenizers.build().get_vocab() == tokenizer.get_vocab()
    assert world.fingerprint() == zoo.card("tiny-lm")["training"]["world"]


@pytest.mark.slow
def test_held_out_prompts_are_not_in_the_training_text() -> None:
    prompts = [item.prompt for item in tasks.evaluation_items(20_001, 120)]
    documents = [document for chunk in range(2) for document in tasks.training_documents(f"0 {chunk}", 8000)]
    assert world.occurs_in(prompts, documents) == set()


def test_the_check_finds_a_prompt_that_does_occur() -> None:
    text = world.document("It rained. The capital of France is[[ Paris]].")
    assert world.occurs_in(["The capital of France is", "The capital of Peru is"], [text]) == {
        "The capital of France is"
    }


def test_marks_become_spans() -> None:
    document = world.document("a[[ b]] c[[ d]].")
    assert document.text == "a b c d."
    assert [document.text[start:stop] for start, stop in document.spans] == [" b", " d"]
    assert world.prompt_of("a[[ b]] c[[ d]].") == ("a b c", " d")


def test_there_are_a_few_hundred_facts_and_each_is_taught() -> None:
    facts = world.facts()
    assert len(facts) > 300
    for fact in facts:
        statements = world.RELATIONS[fact.relation].statements
        assert sum(not world.statement_held_out(fact, index) for index in range(len(statements))) >= 1
