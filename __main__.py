"""`python -m nasc`, and the entry point of the `nasc` command."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command line."""
    # Threads of torch that wait by spinning take the processor from those at work; read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from .cli import main as run

    run()


if __name__ == "__main__":
    main()
