"""`python -m nasc`, and the entry point of the `nasc` command."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line."""
    # Threads of torch that wait by spinning take the processor from those at work; read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from .cli import main as run

        run()
    except KeyboardInterrupt:  # while modules were still being loaded
        print("stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
