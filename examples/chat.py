"""Which words of a chat lead to each word of the answer? Scores by message and by token for a generated answer.

python examples/chat.py [FOLDER]
"""

import sys
from pathlib import Path

import pellucid

out = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
chat = [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": "What is the capital of France?"},
]

subject = pellucid.load("zoo:tiny-lm")
explanation = pellucid.explain(subject, chat, generate=4)
explanation.show()
explanation.html(out / "chat.html")

by_message = pellucid.run("occlusion", subject, chat, target=pellucid.Target.generated(4, each=False), unit="message")
by_message.show()
print(f"The page: {out / 'chat.html'}")
