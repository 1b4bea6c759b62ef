"""Ternary and binary numbers, and the steps that suit them best."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from nasc.compiler.elements import nearest as torch_nearest
from nasc.compiler.steps import symmetric_steps
from nasc.ir import Format, format_named
from support.format_laws import FormatLaws


class TestTernary(FormatLaws):
    names = ("ternary",)

    def independent(self, value: Fraction, format: Format) -> Fraction:
        return Fraction((value > Fraction(1, 2)) - (value < -Fraction(1, 2)))


class TestBinary(FormatLaws):
    names = ("binary",)
    symmetric = False  # zero is taken for a positive number

    def independent(self, value: Fraction, format: Format) -> Fraction:
        return Fraction(1 if value >= 0 else -1)


def error(rows: torch.Tensor, steps: torch.Tensor, format: Format) -> torch.Tensor:
    return (torch_nearest(rows / steps[:, None], format) * steps[:, None] - rows).double().square().sum(1)


@pytest.mark.parametrize("name", ["ternary", "binary"])
def test_no_other_step_has_a_smaller_error(name: str) -> None:
    format = format_named(name)
    rows = torch.randn(20, 33, generator=torch.Generator().manual_seed(0))
    best = symmetric_steps(rows, format, mse=True, power_of_two=False)
    least = error(rows, best, format)
    for share in torch.linspace(0.05, 3.0, 400):
        assert bool((error(rows, best * share, format) >= least * (1 - 1e-6)).all())
    assert bool((error(rows, best * 1.5, format) > least * 1.01).all()), "the error does tell steps apart"


def test_steps_of_signs_can_be_powers_of_two() -> None:
    rows = torch.randn(20, 33, generator=torch.Generator().manual_seed(0))
    for name in ("ternary", "binary"):
        format = format_named(name)
        steps = symmetric_steps(rows, format, mse=True, power_of_two=True)
        assert torch.equal(steps.log2(), steps.log2().round())
        for other in (steps * 2, steps / 2):
            assert bool((error(rows, other, format) >= error(rows, steps, format)).all())


def test_rows_of_zeros_have_a_step() -> None:
    for name in ("ternary", "binary"):
        assert symmetric_steps(torch.zeros(2, 5), format_named(name), mse=True, power_of_two=False).tolist() == [1, 1]
