"""Explain a hundred prompts into one table: which words matter most for the word that comes next?

python examples/hundred_prompts.py [FOLDER]
"""

import sys

import pandas as pd

import pellucid

COUNTRIES = ["France", "Italy", "Spain", "Germany", "Japan", "Egypt", "Greece", "Norway", "Poland", "Peru"]
OPENINGS = [
    "The capital of {} is",
    "{} has a capital called",
    "I live in {} and my city is",
    "The people of {} speak",
    "In {} there is",
]
OPENINGS += [
    "My friend from {} said",
    "We went to {} because",
    "The king of {} was",
    "She was born in {} near",
    "Far away from {} lies",
]

subject = pellucid.load("zoo:tiny-lm")
prompts = [opening.format(country) for opening in OPENINGS for country in COUNTRIES]
results = pellucid.run("gradient_x_input", subject, prompts, unit="word")
table = pd.concat([result.to_pandas().assign(prompt=prompt) for prompt, result in zip(prompts, results, strict=True)])
table.to_csv(f"{sys.argv[1] if len(sys.argv) > 1 else 'out'}/hundred_prompts.csv", index=False)
print(
    table.groupby("unit")["value"].agg(["mean", "std", "count"]).sort_values("mean", ascending=False).head(10).round(2)
)
