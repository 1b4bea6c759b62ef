"""Random numbers that depend on a seed and on what they are for, and on nothing else."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, *what: str) -> torch.Generator:
    """A source of random numbers that depends on the seed and on what it is for, and on nothing else."""
    digest = hashlib.sha256("\n".join([str(seed), *what]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
