"""Reading and intervening: the cone everywhere, exact sums, planted parts, circuits of tiny-lm, errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.show import Shown, line
from scripts.show.engine import records

IDS = [11, 42, 7, 23, 64, 5]
OTHER = [11, 42, 8, 23, 64, 5]
SITES = ("resid_pre", "attn.q", "attn.k", "attn.v", "attn.pattern", "attn.z", "attn.out", "resid_mid", "mlp.post",
         "mlp.out", "resid_post")  # fmt: skip
PLANTED = ("fact", "gpt2-fact", "gpt2-induction", "induction", "majority", "two-step")


def decoders(dtype: str = "double") -> Iterator[tuple[str, Any]]:
    """Yield every tiny decoder that says a next token."""
    import pellucid
    from tests.tiny_decoders import TINY_DECODERS

    for name, make in TINY_DECODERS.items():
        subject = pellucid.load(getattr(make(), dtype)())
        if subject.kind == "decoder" and subject.head == "causal-lm":
            yield name, subject


@line("cone = full run for every site, layer and position on all decoder architectures",
      bar="1e-5 in float32, 1e-10 in float64")  # fmt: skip
def cone(out: Path) -> Shown:
    """Patch every place of every site of every tiny decoder, by the cone and by whole runs."""
    import numpy as np

    from pellucid.core.axes import parse_site
    from pellucid.core.errors import PellucidError
    from pellucid.engine.capture import capture, expand
    from pellucid.engine.cone import score_edits, score_edits_plain
    from pellucid.engine.targets import resolve
    from pellucid.models.edits import Edit

    worst, count, places = {"float": 0.0, "double": 0.0}, dict.fromkeys(("float", "double"), 0), 0
    for dtype in worst:
        for _, subject in decoders(dtype):
            count[dtype] += 1
            tokens = subject.encode(OTHER)
            readout = resolve(subject, tokens, 17, 33)
            for site in SITES:
                try:
                    names = expand(subject, f"blocks.*.{site}")
                    values = capture(subject, IDS, names)
                except PellucidError:
                    continue  # the architecture lacks the site
                axis = "query" if "query" in parse_site(names[0]).axes else "position"
                sets: list[Any] = [()]
                sets += [(Edit(n, "patch_from", values[n], {axis: p}),) for n in names for p in range(len(IDS))]
                gap = score_edits(subject, tokens, readout, sets) - score_edits_plain(subject, tokens, readout, sets)
                worst[dtype], places = max(worst[dtype], float(np.abs(gap).max())), places + len(sets) - 1
    figure = (
        f"{count['double']} architectures, {places:,} places; largest gap {worst['float']:.0e}, {worst['double']:.0e}"
    )
    return Shown(figure, worst["float"] <= 1e-5 and worst["double"] <= 1e-10)


@line("sum of direct contributions = logit difference", bar="1e-4, every decoder")
def direct(out: Path) -> Shown:
    """Take the logit difference apart, by sub-layer and by head, and compare with the model."""
    import pellucid
    from pellucid.core.errors import PellucidError
    from pellucid.engine.capture import capture

    worst, count, refused = 0.0, 0, []
    for name, subject in decoders("float"):
        logits = capture(subject, IDS, ["logits"])["logits"][-1]
        try:
            found = pellucid.run("direct_logit_attribution", subject, IDS, target=17, contrast=33)
        except PellucidError:
            refused.append(name)
            continue
        total = found.values.sum() + found.evidence[0].values["constants"]
        worst, count = max(worst, abs(float(total) - float(logits[17] - logits[33]))), count + 1
    return Shown(f"{count} architectures, largest gap {worst:.0e}; refused: {refused or 'none'}", worst <= 1e-4)


@line("patch nothing = clean; patch everything at the first site = source run; logit lens at the last site = the model",
      bar="1e-10 in float64, every decoder")  # fmt: skip
def ends(out: Path) -> Shown:
    """Compare the ends of patching, and of the lens, with plain runs."""
    import torch

    import pellucid
    from pellucid.engine.capture import capture
    from pellucid.engine.cone import score_edits
    from pellucid.engine.targets import resolve
    from pellucid.models.edits import Edit

    worst, lens, count, refused = 0.0, 0.0, 0, []
    for name, subject in decoders():
        bad = subject.encode(OTHER)
        readout = resolve(subject, bad, 17, 33)
        value = capture(subject, IDS, ["blocks.0.resid_pre"])["blocks.0.resid_pre"]
        whole = (Edit("blocks.0.resid_pre", "patch_from", value, {"position": list(range(len(IDS)))}),)
        nothing, everything = score_edits(subject, bad, readout, [(), whole])[:, 0]
        runs = [capture(subject, ids, ["logits"])["logits"][-1] for ids in (OTHER, IDS)]
        clean = [float(one[17] - one[33]) for one in runs]
        worst = max(worst, abs(float(nothing) - clean[0]), abs(float(everything) - clean[1]))
        try:
            last = pellucid.run("logit_lens", subject, IDS, target=17)
        except pellucid.PellucidError:
            refused.append(name)
            continue
        wanted = float(runs[1][17]) if last.unit == "logit" else float(torch.log_softmax(runs[1], -1)[17])
        lens, count = max(lens, abs(float(last.values[-1, -1]) - wanted)), count + 1
    figure = f"patching {worst:.0e}; lens {lens:.0e} on {count} architectures; refused: {refused or 'none'}"
    return Shown(figure, worst <= 1e-10 and lens <= 1e-10)


@line("on zoo:truth/* exact methods name exactly the planted parts", bar="rank of parts and area 1.0 on every model")
def planted(out: Path) -> Shown:
    """Score patching on the constructed models, and let the study of induction name the heads."""
    import pellucid
    from pellucid.core.results import Table
    from pellucid.evaluate.truth import COLUMNS, bench_truth
    from pellucid.studies.induction import induction

    table = bench_truth(["activation_patching"], [f"truth/{name}" for name in PLANTED], prompts=4)
    areas = [float(row[COLUMNS.index("area")]) for row in table.rows if row[COLUMNS.index("area")] is not None]
    named = []
    for name in ("induction", "gpt2-induction"):
        found = induction(pellucid.load(f"zoo:truth/{name}"), pairs=6)
        heads = next(one for one in found.results if isinstance(one, Table))
        named.append([f"{row[0]} {row[1]}" for row in heads.rows])
    right = all(one == ["1.1 induction", "0.0 before them"] for one in named)
    figure = f"patching: smallest area {min(areas):.3f} of {len(areas)}; the study names {named[0]} and {named[1]}"
    return Shown(figure, min(areas) >= 0.999 and right)


@line("zoo:tiny-lm: where a fact is stored and read, which heads do induction and the indirect object",
      bar="two independent methods agree on each")  # fmt: skip
def studied(out: Path) -> Shown:
    """Run the studies, write their pages, and read their agreement."""
    import pellucid

    subject, figures, good, pages = pellucid.load("zoo:tiny-lm"), [], True, []
    for name in ("fact_recall", "induction", "indirect_object"):
        found = pellucid.run(name, subject)
        pages.append(out / f"{name}.html")
        found.html(pages[-1])
        checks = [one for one in found.evidence if "agree" in one.name]
        good = good and bool(checks) and all(one.ok for one in checks)
        figures.append(f"{name}: {found.notes[0]} {'; '.join(one.name for one in checks)}")
    return Shown(" ".join(figures), good, tuple(pages))


@line("patching, heads and tracing through the public methods", bar="the engine's bars, as make bench saved them")
def ratios(out: Path) -> Shown:
    """Read the saved ratios of the engine's rows."""
    from bench.jobs import JOBS
    from scripts.show.engine import judged

    figures, short = [], []
    for name in ("residual-patching", "head-patching", "tracing-1", "tracing-10"):
        found, lacking = judged(JOBS[name])
        figures, short = [*figures, *found], [*short, *lacking]
    return Shown("; ".join([*figures, *(f"short: {one}" for one in short)]), bool(records()) and not short)


@line("path patching of all sources into one receiver", bar="<= 1.3x the rows of its cone, counted, 12 layers")
def paths(out: Path) -> Shown:
    """Count the rows for the logits, a head and a feed-forward layer as receivers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    import pellucid

    config = LlamaConfig(vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=12,
                         num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64)  # fmt: skip
    subject, ratios = pellucid.load(LlamaForCausalLM(config).eval()), []
    # Rows that cannot be spared: the embedding, every head and feed-forward layer below, all together, and none.
    needed = {"logits": 12 * 5 + 3, "blocks.11.attn.0.q": 11 * 5 + 3, "blocks.11.mlp": 11 * 5 + 4 + 3}
    for receiver, rows in needed.items():
        found = pellucid.run("path_patching", subject, IDS, corrupt=OTHER, target=17, receiver=receiver)
        ratios.append((receiver, found.provenance.forwards / rows))
    return Shown("; ".join(f"{name} {ratio:.2f}" for name, ratio in ratios), max(r for _, r in ratios) <= 1.3)


@line("tuned lens trains all layers together in one pass over the activations",
      bar="forwards no more than the prompts and their proof, 12 layers")  # fmt: skip
def lens(out: Path) -> Shown:
    """Train on a 12-layer model and count rows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    import pellucid

    config = LlamaConfig(vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=12,
                         num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64)  # fmt: skip
    subject = pellucid.load(LlamaForCausalLM(config).eval())
    corpus = [[(7 * i + 3 * j) % 90 + 4 for j in range(12)] for i in range(16)]
    found = pellucid.run("tuned_lens", subject, corpus)
    layers = max(value.shape[0] for value in found.tensors.values())
    figure = f"{found.provenance.forwards} forwards for {len(corpus)} prompts, translators for {layers} layers"
    return Shown(figure, found.provenance.forwards <= 2 * len(corpus) and layers >= 12)


@line("unequal lengths, padding, a missing site, a site that never fires, a patch of wrong shape, an encoder",
      bar="one sentence that names the cure, or the right answer")  # fmt: skip
def errors(out: Path) -> Shown:
    """Ask for each, and read what comes back."""
    import numpy as np

    import pellucid
    from pellucid.core.errors import PellucidError
    from pellucid.engine.capture import capture
    from tests.tiny import TINY

    subject, encoder = pellucid.load(TINY["llama"]()), pellucid.load("zoo:tiny-classifier")
    value = capture(subject, IDS, ["blocks.0.mlp.out"])["blocks.0.mlp.out"]
    patch = {"corrupt": OTHER, "target": 1}
    asked: dict[str, Any] = {
        "unequal lengths": lambda: pellucid.run("activation_patching", subject, IDS, corrupt=OTHER[:5], target=1),
        "missing site": lambda: pellucid.run("activation_patching", subject, IDS, site="mlp.outt", **patch),
        "site that never fires": lambda: pellucid.run("activation_patching", subject, IDS, site="router", **patch),
        "wrong shape": lambda: pellucid.run(
            "occlusion", subject.with_(pellucid.Edit("blocks.0.mlp.out", "set", value[:3])), IDS, target=1),
        "encoder": lambda: pellucid.run("induction", encoder),
    }  # fmt: skip
    said, short = [], []
    for name, call in asked.items():
        try:
            call()
        except PellucidError as error:
            said.append(f"{name}: {error}")
        else:
            short.append(f"{name} passed in silence")
    lengths = [IDS, IDS[:4]]
    rows = pellucid.run("ablation", subject, lengths[0], others=[lengths[1]], target=1, value="zero").values
    alone = [pellucid.run("ablation", subject, ids, target=1, value="zero").values for ids in lengths]
    gap = float(np.abs(rows - np.mean(alone, 0)).max())
    said.append(f"padding: prompts of two lengths together equal each alone to {gap:.0e}")
    return Shown(" | ".join([*said, *short]), not short and gap < 1e-5)
