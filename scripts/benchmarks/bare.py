"""What Python alone can do: a loop that awaits the bodies itself.

`python -m scripts.benchmarks.bare LOW HIGH IN_FLIGHT`
"""

from __future__ import annotations

import sys

import uvloop

from .bodies import nap
from .inside import each


def main() -> None:
    """Nap through a range of tasks."""
    low, high, in_flight = map(int, sys.argv[1:])
    uvloop.run(each(range(low, high), in_flight, nap))


if __name__ == "__main__":
    main()
