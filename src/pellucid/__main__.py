"""Run the command line as `python -m pellucid`."""

from __future__ import annotations

import sys

from pellucid.cli import main

if __name__ == "__main__":
    sys.exit(main())
