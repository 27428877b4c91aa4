"""Explain a plain Python function from texts to log-probabilities, of which nothing else is known.

python examples/black_box.py [FOLDER]
"""

import math
import sys

import pellucid


def judge(texts: list[str]) -> list[float]:
    """Return log p("positive") of each text; any server or library could stand here."""
    return [math.log(0.1 + 0.6 * ("good" in text) + 0.2 * ("film" in text)) for text in texts]


explanation = pellucid.explain(pellucid.load(judge), "All in all a good film, and not too long", unit="word")
explanation.show()
explanation.html(f"{sys.argv[1] if len(sys.argv) > 1 else 'out'}/black_box.html")
