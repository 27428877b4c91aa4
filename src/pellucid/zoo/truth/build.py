"""Make the constructed models again: `python -m pellucid.zoo.truth.build [--out DIR]`. The same files every time."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pellucid.zoo import truth
from pellucid.zoo.truth._answer import answer
from pellucid.zoo.truth._program import Program
from pellucid.zoo.truth._weights import model, tokenizer


def build(out: Path = truth.FOLDER) -> list[Path]:
    """Write every constructed model with its tokenizer, answer and card to a folder of its own; return the folders."""
    folders = []
    for name in truth.names():
        program, folder = truth.program(name), out / name
        folder.mkdir(parents=True, exist_ok=True)
        made = model(program)
        made.save_pretrained(folder)
        tokenizer(program).save_pretrained(folder)
        known = answer(program)
        (folder / "answer.json").write_text(_compact(known), encoding="utf-8")
        (folder / "card.md").write_text(_card(program, made.num_parameters()), encoding="utf-8")
        folders.append(folder)
    return folders


def _compact(known: dict[str, object]) -> str:
    """Return JSON with one line per prompt and pair, so that a change can be read."""
    plain = {key: value for key, value in known.items() if key not in ("prompts", "pairs")}
    text = json.dumps(plain, indent=1)[:-2]
    for key in ("prompts", "pairs"):
        items: list[object] = known[key]  # type: ignore[assignment]
        text += f',\n "{key}": [\n' + ",\n".join(json.dumps(item, separators=(",", ":")) for item in items) + "\n ]"
    return text + "\n}\n"


def _card(program: Program, weights: int) -> str:
    heads = [
        f"| {layer} | head {index} | {head.role or 'idle'} |"
        for layer, block in enumerate(program.blocks)
        for index, head in enumerate(block.heads)
    ]
    neurons = [
        f"| {layer} | neuron {index} | {neuron.role or 'idle'} |"
        for layer, block in enumerate(program.blocks)
        for index, neuron in enumerate(block.neurons)
    ]
    kind = (
        "An unmodified GPT-2 with its norms"
        if program.gpt2
        else "The project's own small decoder, its norm the identity"
    )
    return "\n".join([
        f"# zoo:truth/{program.name}", "", program.summary, "",
        f"{kind}; {len(program.blocks)} block(s), {weights} weights, written down by "
        f"`zoo/truth/{program.name.replace('-', '_')}.py` and not trained.", program.notes, "",
        f"Stated and tested on {len(program.inputs)} prompts; the answer file holds {len(program.prompts)} prompts and "
        f"{len(program.pairs)} pairs.", "", "| block | part | what it is for |", "|---|---|---|", *heads, *neurons, "",
    ])  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the constructed models again.")
    parser.add_argument("--out", type=Path, default=truth.FOLDER, help="where to (default: into the package)")
    build(parser.parse_args().out)
