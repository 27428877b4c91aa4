"""`python -m scripts.show ISSUE [WORD ...]`: measure an issue's lines, or those whose text has one of the words."""

from __future__ import annotations

import os
import sys

from scripts import show


def main(arguments: list[str]) -> int:
    """Return 0 when every line is ok, 1 when one is short, 2 when there is nothing to run."""
    have = show.issues()
    if not arguments or arguments[0] not in have:
        print(f"Name an issue: make show ISSUE=NAME, where NAME is one of {', '.join(have)}.", file=sys.stderr)
        return 2
    words = [word.lower() for word in arguments[1:]]
    lines = [
        item
        for item in show.lines_of(show.load(arguments[0]))
        if not words or any(word in item.text.lower() for word in words)
    ]
    if not lines:
        print(f"No line of {arguments[0]} has one of the words {words}.", file=sys.stderr)
        return 2
    os.chdir(show.ROOT)
    # The models here are tiny: further threads only wait for each other, for minutes on a busy machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return 1 if show.run(lines, show.ROOT / "out" / "show" / arguments[0]) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
