"""Why does the bundled model answer "Paris"? Several methods, their agreement, and a deletion check.

python examples/fact.py [FOLDER]
"""

import sys
from pathlib import Path

import pellucid

out = Path(sys.argv[1] if len(sys.argv) > 1 else "out")

subject = pellucid.load("zoo:tiny-lm")
explanation = pellucid.explain(subject, "The capital of France is", contrast=" Rome")
explanation.show()
explanation.html(out / "fact.html")
explanation.save(out / "fact")
print(f"The page: {out / 'fact.html'}")
