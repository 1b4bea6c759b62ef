"""What every number format promises: one class that the tests of all of them inherit."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nasc.compiler.elements import codes_of, container, elements_of
from nasc.compiler.elements import nearest as torch_nearest
from nasc.ir import Format, Step, format_named, parse_encoding
from nasc.ir.formats import (
    block_step,
    code_of,
    element_of,
    element_values,
    elements,
    encode,
    floor_log2,
    largest,
    nearest,
)
from torch import Tensor

HALF = Fraction(1, 2)
inherited = settings(suppress_health_check=[HealthCheck.differing_executors])
"""For properties that several classes inherit."""


def exact(values: Tensor) -> list[Fraction]:
    """Finite numbers as rational ones."""
    return [Fraction(v) for v in values.double().tolist()]


class FormatLaws:
    """Range, step and rounding of some formats: the exact reference, and torch's arithmetic against it.

    Subclasses name the formats and give rounding once more, in their own way.
    """

    names: ClassVar[tuple[str, ...]]
    symmetric: ClassVar[bool] = True
    """Whether rounding the negative of a number gives the negative."""
    dtypes: ClassVar[dict[str, Any]] = {}
    """The types of ml_dtypes that some of the formats are."""

    def independent(self, value: Fraction, format: Format) -> Fraction:
        """The element that a number is rounded to, found without the code under test: the nearest of all.

        Of two that are equally near the one with the even code is taken, which is the even mantissa or integer.
        """
        held = [(e, code) for code, e in self.all_of(format)]
        return min(held, key=lambda pair: (abs(pair[0] - value), pair[1] % 2))[0]

    def all_of(self, format: Format) -> list[tuple[int, Fraction]]:
        """Codes with their elements, both zeros among them; some of those of large formats."""
        if format.bits > 10:
            few = {
                format.low,
                format.low + 1,
                0,
                1,
                format.high - 1,
                format.high,
                *range(format.low, format.high, 1013),
            }
            return [(code, e) for code in sorted(few) if (e := self.element(code, format)) is not None]
        codes = range(format.low, format.high + 1)
        return [(code, e) for code, e in zip(codes, elements(format), strict=True) if e is not None]

    @staticmethod
    def element(code: int, format: Format) -> Fraction | None:
        """An element, or None where the code is no number."""
        try:
            return element_of(code, format)
        except ValueError:
            return None

    def interesting(self, format: Format) -> Tensor:
        """Binary32 numbers of all sizes around the format's elements, with elements and the middles between them."""
        generator = torch.Generator().manual_seed(format.bits)
        drawn = torch.randn(100, generator=generator)
        top = float(largest(format))
        drawings = [drawn * s for s in (top, top / 4, 1.0, 1e-3, 1e-30, 1e30)]
        if format.bits <= 10:
            held = torch.tensor(sorted(float(e) for _, e in self.all_of(format)), dtype=torch.float64)
            middles = (held[1:] + held[:-1]) / 2
            near = [middles, held, middles * (1 + 2.0**-23), middles * (1 - 2.0**-23)]
            drawings += [t.float() for t in near]
        found = torch.cat([*drawings, torch.tensor([0.0, -0.0, 1e-45, 3.4e38, -3.4e38])])
        return found[found.isfinite()]

    # What is asked of all

    def test_the_name_says_what_it_is(self) -> None:
        for name in self.names:
            format = format_named(name)
            assert format.name == name and str(parse_encoding(name)) == name
            assert len({code for code, _ in self.all_of(format)}) <= 2**format.bits

    def test_codes_and_elements_are_each_other(self) -> None:
        for format in map(format_named, self.names):
            for code, element in self.all_of(format):
                assert nearest(element, format) == element, "an element is rounded to itself"
                assert element_of(code_of(element, format), format) == element
                if element:
                    assert code_of(element, format) == code

    def test_elements_in_binary64_are_the_same(self) -> None:
        for format in map(format_named, self.names):
            found = element_values(format) if format.bits <= 10 or format.family == "minifloat" else ()
            assert all(found[code - format.low] == float(e) for code, e in self.all_of(format) if found)

    def test_the_range_ends_at_the_largest_element(self) -> None:
        for format in map(format_named, self.names):
            found = [e for _, e in self.all_of(format)]
            assert max(found) == largest(format) or format.bits > 10
            for far in (Fraction(10**60), -Fraction(10**60)):
                bounds = (largest(format), -largest(format)) if format.bits > 10 else (max(found), min(found))
                if format.is_int and far < 0:
                    bounds = (bounds[0], Fraction(format.low))
                assert nearest(far, format) == bounds[far < 0]

    @inherited
    @given(st.data())
    def test_rounding_is_the_independent_one(self, data: st.DataObject) -> None:
        format = format_named(data.draw(st.sampled_from([n for n in self.names if format_named(n).bits <= 9])))
        value = data.draw(self.reals(format))
        assert nearest(value, format) == self.independent(value, format)

    @inherited
    @given(st.data())
    def test_rounding_again_changes_nothing_and_order_is_kept(self, data: st.DataObject) -> None:
        format = format_named(data.draw(st.sampled_from(self.names)))
        one, other = sorted((data.draw(self.reals(format)), data.draw(self.reals(format))))
        low, high = nearest(one, format), nearest(other, format)
        assert low <= high
        assert nearest(low, format) == low
        assert low == -nearest(-one, format) or not self.symmetric

    def reals(self, format: Format) -> st.SearchStrategy[Fraction]:
        """Real numbers: of the format's size, elements' middles among them."""
        top = largest(format)
        fine = st.fractions(-2 * top, 2 * top, max_denominator=1 << 12)
        halves = st.integers(-(2 << format.bits), 2 << format.bits).map(lambda n: n * HALF)
        return (
            fine | halves | st.sampled_from(sorted({e for _, e in self.all_of(format)} if format.bits <= 9 else {top}))
        )

    @inherited
    @given(st.data())
    def test_a_step_scales(self, data: st.DataObject) -> None:
        format = format_named(data.draw(st.sampled_from(self.names)))
        value, step = data.draw(self.reals(format)), data.draw(st.fractions(Fraction(1, 1000), 1000))
        assert element_of(encode(value * step, format, step), format) == nearest(value, format)

    def test_torch_rounds_as_the_reference(self) -> None:
        for format in map(format_named, self.names):
            x = self.interesting(format)
            found = torch_nearest(x, format)
            assert exact(found) == [nearest(v, format) for v in exact(x)], format.name

    def test_torch_stores_codes(self) -> None:
        for format in map(format_named, self.names):
            rounded = torch_nearest(self.interesting(format), format)
            codes = codes_of(rounded, format)
            assert codes.dtype == container(format)
            assert torch.equal(elements_of(codes, format), rounded + 0.0)
            if not format.is_float:
                assert codes.long().tolist() == [code_of(e, format) for e in exact(rounded)]

    def test_not_a_number_stays_one_or_is_a_code(self) -> None:
        for format in map(format_named, self.names):
            found = torch_nearest(torch.tensor([math.inf, -math.inf]), format)
            assert exact(found) == [nearest(Fraction(10**60), format), nearest(-Fraction(10**60), format)]

    def test_ml_dtypes_has_the_same_numbers(self) -> None:
        for name, dtype in self.dtypes.items():
            format = format_named(name)
            bits = np.arange(2**format.bits, dtype=np.uint16 if format.bits > 8 else np.uint8)
            with np.errstate(invalid="ignore"):  # signalling NaNs
                theirs = bits.view(dtype).astype(np.float64)
            for code in range(0, 2**format.bits, 1 if format.bits <= 8 else 251):
                ours = self.element(code, format)
                assert float(ours) == theirs[code] if ours is not None else not np.isfinite(theirs[code])
            x = self.interesting(format)
            inside = x[x.abs() <= float(largest(format))]
            expected = inside.numpy().astype(dtype).astype(np.float32)
            assert torch.equal(torch_nearest(inside, format) + 0.0, torch.from_numpy(expected) + 0.0), name

    def test_blocks_take_their_step_from_their_largest(self) -> None:
        from nasc.compiler.elements import block_steps, spread

        x = torch.randn(3, 37, generator=torch.Generator().manual_seed(1)) * torch.tensor([[1e-30], [1.0], [3e30]])
        x[1, 16:32] = 0.0
        for format in (f for f in map(format_named, self.names) if f.takes_step):
            for power in (True, False):
                kind = Step.blocks(16, 1, power_of_two=power)
                steps = block_steps(x, format, kind)
                assert steps.shape == (3, 3)
                for row in range(3):
                    for block, cut in enumerate(x[row].split(16)):
                        want = block_step(exact(cut), largest(format), power_of_two=power)
                        got = Fraction(float(steps[row, block]))
                        assert got == want, (format.name, power, row, block)
                scaled = (x / spread(steps, 1, 16, x.shape)).abs().amax()
                assert float(scaled) < float(largest(format)) * (2 if power else 1 + 2.0**-22)
                if power:
                    assert floor_log2(block_step([Fraction(1)], largest(format), power_of_two=True)) == -floor_log2(
                        largest(format)
                    )
