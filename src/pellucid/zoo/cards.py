"""The card that stands beside a bundled model: what it is, how it was made, what it was measured to do."""

import json
from pathlib import Path

_TEXT = """# tiny-lm

A language model of {parameters:,} parameters: an unmodified Llama decoder ({layers} layers, width {width},
{heads} heads, {kv_heads} key/value heads, {vocabulary} tokens, tied embeddings). It was trained from nothing
for {minutes} minutes ({steps} steps, seed {seed}, {threads} processor core{plural}), with the text that
`pellucid.zoo.tasks` writes. The weights are stored as bfloat16 and load as float32.

It knows a world of {facts} facts (capitals, continents and languages of real countries; homes, origins, crafts
and instruments of invented people), follows a few patterns inside a prompt, and answers short chats. It knows
nothing else: its English is a few hundred templates, and prompts outside of them get a fluent guess at best.
Nothing longer than 128 tokens was trained on.

The facts about people are invented. The facts about countries were chosen for single words, and simplified: one
capital and one language each.

## What it was measured to do

Each row: prompts from a seed that training never saw, and of content that training held out for every seed.
`greedy` counts a prompt as right if greedy decoding gives the whole answer; `choice` if the right continuations
together are more probable than the wrong ones.

| task | accuracy | probability of the right answer | chance | prompts | judge | what |
|---|---|---|---|---|---|---|
{rows}

## Chat format

    <|bos|><|system|> Answer in one word.<|end|><|user|> Where does Anna Silva live?<|end|><|assistant|> Paris<|end|>

The system message is optional; the two it was trained on are "Answer in one word." and "Answer in a sentence."

## Make it again

    python -m pellucid.zoo.train_tiny_lm --steps {steps} --seed {seed} --out DIR
"""


def write(
    folder: Path, measured: dict[str, dict[str, object]], run: dict[str, object], facts: int, parameters: int
) -> None:
    """Write capabilities.json and card.md into the model's folder."""
    rounded = {name: {key: _rounded(value) for key, value in row.items()} for name, row in measured.items()}
    content = {"parameters": parameters, "training": run, "tasks": rounded}
    (folder / "capabilities.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rows = "\n".join(
        f"| {name} | {row['accuracy']:.3f} | {row['probability']:.3f} | {row['chance']:.3f} "
        f"| {row['prompts']} | {row['judge']} | {row['what']} |"
        for name, row in rounded.items()
    )
    text = _TEXT.format(
        **run,
        plural="" if run["threads"] == 1 else "s",
        parameters=parameters,
        facts=facts,
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        vocabulary=config["vocab_size"],
        rows=rows,
    )
    (folder / "card.md").write_text(text, encoding="utf-8")


def _rounded(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value
