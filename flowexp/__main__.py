"""`python -m flowexp COMMAND key=value ...`, which is the console script where that is not on the path."""

from __future__ import annotations

import sys

from flowexp.cli.launch import main

if __name__ == "__main__":
    sys.exit(main())
