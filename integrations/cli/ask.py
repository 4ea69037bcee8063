"""Ask before something that can't be taken back."""

from __future__ import annotations

import sys

from ..words import visible
from .output import complain


def confirm(question: str) -> bool:
    """Ask on stderr, so that stdout stays clean; True for a yes. A no, or nobody to answer, is said on stderr."""
    print(f"{visible(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if answer.strip().lower() in ("y", "yes"):
        return True
    if not answer:
        print(file=sys.stderr)
    complain("nothing was done. Answer y, or add --yes.")
    return False
