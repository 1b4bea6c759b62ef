"""Proofs of resize, in binary64 with weights drawn at random, each beside a control that must differ.

- Permutation: every width permuted at random, and all weights by the maps: the function does not change.
- Narrowing: the narrowed network is the network with the dropped channels masked.
- Growing: copies divided among their readers: the function does not change (Net2Net).

Masks come from `support.meaning`, which writes axis terms out index by index and knows nothing of the code under test.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nasc.compiler.network import Network
from nasc.compiler.passes import Context, Resize
from nasc.compiler.passes.resize import without_steps
from nasc.compiler.resizing import Policy, gather_index, gathered
from nasc.ir import SPECS, Graph, verify, widths_in
from nasc.ir.axes import size
from support.drawing import SIZES, terms
from support.meaning import labels
from support.networks import difference, inputs_of, network_of, outputs, random, with_values
from support.zoo import ZOO
from torch import Tensor

F64 = torch.float64
EXACT = 1e-10

nets = pytest.mark.parametrize("name", ZOO)


def source(name: str, seed: int = 0) -> Network:
    return network_of(ZOO[name], seed, F64)


def mapped(network: Network, maps: Mapping[str, Tensor], how: Resize = Resize()) -> Network:  # noqa: B008
    """The network under index maps, with a graph that holds."""
    graph = network.graph.with_sizes({w: len(m) for w, m in maps.items()})
    recipes = gathered(network, network.graph, maps, Policy(how.grow, how.noise, seed=3))
    result = Network(without_steps(graph), network.weights.with_recipes(recipes))
    verify(result.graph)
    for op in result.graph.stored:
        assert tuple(result.values[op.name].shape) == tuple(size(a, result.graph.sizes) for a in op.type.axes)
    return result


def shuffled(count: int, *what: object) -> Tensor:
    """A permutation that is not the identity (but of one element)."""
    order = random((count,), *what).argsort()
    return order.roll(1) if count > 1 and torch.equal(order, torch.arange(count)) else order


@nets
@pytest.mark.parametrize("seed", [0, 1])
def test_permutation(name: str, seed: int) -> None:
    network, x = source(name, seed), inputs_of(ZOO[name], dtype=F64)
    maps = {w: shuffled(n, name, w, seed) for w, n in network.widths.items()}
    permuted = mapped(network, maps)
    assert permuted.graph == network.graph
    assert difference(network, permuted, x) < EXACT


@nets
def test_permuting_all_but_one_tensor_changes_the_function(name: str) -> None:
    """The control: leave out any one tensor whose order matters, and the outputs differ."""
    network, x = source(name), inputs_of(ZOO[name], dtype=F64)
    maps = {w: shuffled(n, name, w) for w, n in network.widths.items()}
    permuted = mapped(network, maps)
    carrying = [op.name for op in network.graph.stored if any(True for a in op.type.axes for _ in widths_in(a))]
    for left_out in carrying:
        wrong = with_values(permuted, {left_out: network.values[left_out]})
        assert difference(network, wrong, x) > 1e-3, left_out


def masked(network: Network, kept: Mapping[str, set[int]]) -> Network:
    """The network with zeros wherever a layer reads a channel that is not kept."""
    graph, changed = network.graph, dict[str, Tensor]()
    for op in graph.ops:
        axis = SPECS[op.kind].input_axis if op.kind in SPECS else None
        if axis is None:
            continue
        weight = op.inputs[1]
        stays = torch.tensor(
            [
                all(i in kept.get(w, {i}) for w, i in label)
                for label in labels(graph.types[weight].axes[axis], graph.sizes)
            ]
        )
        shape = [1] * network.values[weight].dim()
        shape[axis] = -1
        changed[weight] = network.values[weight] * stays.reshape(shape)
    return with_values(network, changed)


NARROWED = [n for n in ZOO if n != "position"]  # a maximum over channels reads them, and is no layer


@pytest.mark.parametrize("name", NARROWED)
@pytest.mark.parametrize("importance", ["l1", "l2", "random"])
def test_narrowing(name: str, importance: str) -> None:
    network, x = source(name), inputs_of(ZOO[name], dtype=F64)
    sizes = {w: max(1, n // 2) for w, n in network.widths.items()}
    if name == "grouped":
        sizes["a.0"] = network.widths["a.0"]  # readers of the same group: dropping a group drops outputs, not inputs
    narrow = Resize(tuple(sizes.items()), importance=importance)  # pyright: ignore[reportArgumentType]
    result = network.apply(str(narrow), seed=5)
    assert dict(result.widths) == sizes
    context = Context(seed=5)
    kept = {w: set(narrow.index_map(network, network.graph, w, n, context).tolist()) for w, n in sizes.items()}
    assert difference(masked(network, kept), result, x) < EXACT
    assert difference(network, result, x) > 1e-3


@pytest.mark.parametrize("name", NARROWED)
def test_masking_other_channels_than_were_dropped_differs(name: str) -> None:
    """The control of narrowing."""
    network, x = source(name), inputs_of(ZOO[name], dtype=F64)
    width, n = next((w, n) for w, n in network.widths.items() if n >= 3)
    result = mapped(network, {width: torch.arange(n - 1)})
    assert difference(masked(network, {width: set(range(n - 1))}), result, x) < EXACT
    assert difference(masked(network, {width: set(range(1, n))}), result, x) > 1e-4


@nets
def test_growing_by_the_pass(name: str) -> None:
    network, x = source(name), inputs_of(ZOO[name], dtype=F64)
    sizes = {w: n + 1 + i for i, (w, n) in enumerate(network.widths.items())}
    result = network.apply(str(Resize(tuple(sizes.items()))))
    assert dict(result.widths) == sizes
    assert difference(network, result, x) < EXACT


@nets
@given(data=st.data())
@settings(max_examples=6)
def test_growing_to_any_size_with_any_copies(name: str, data: st.DataObject) -> None:
    """All old channels in any order, some of them several times."""
    network, x = source(name), inputs_of(ZOO[name], dtype=F64)
    maps: dict[str, Tensor] = {}
    for width, n in network.widths.items():
        copies = data.draw(st.lists(st.integers(0, n - 1), max_size=n))
        maps[width] = torch.tensor(data.draw(st.permutations([*range(n), *copies])))
    result = mapped(network, maps)
    assert dict(result.widths) == {w: len(m) for w, m in maps.items()}
    assert difference(network, result, x) < EXACT


@nets
def test_copies_that_are_not_divided_change_the_function(name: str) -> None:
    """The control of growing."""
    network, x = source(name), inputs_of(ZOO[name], dtype=F64)
    maps = {w: torch.cat([torch.arange(n), torch.arange(n)]) for w, n in network.widths.items()}
    assert difference(network, mapped(network, maps), x) < EXACT
    assert difference(network, mapped(network, maps, Resize(grow="initialise")), x) > 1e-3


@pytest.mark.parametrize("name", ["concat", "heads", "residual", "mlp", "flatten"])
def test_growing_one_width_while_another_narrows(name: str) -> None:
    """Together they are the narrowing alone: also where both widths stand in one product that gets shorter."""
    network, x = source(name), inputs_of(ZOO[name], dtype=F64)
    (first, n), (second, m), *_ = network.widths.items()
    narrow = {second: torch.arange(m // 2)}
    grow = {first: torch.cat([torch.arange(n), torch.tensor([0])])}
    assert difference(mapped(network, narrow), mapped(network, {**narrow, **grow}), x) < EXACT


def test_growing_and_narrowing_in_one_product() -> None:
    """`$g` of 2 grows to 3 while `$e` of 8 shrinks to 2: 16 becomes 6, and some of the 6 are copies."""
    from support.networks import free

    graph = free(
        """
        %a.weight: f32[16, 16] = weight
        %a: f32[N, 16] = linear %x, %a.weight
        %r: f32[N, 2, 8] = reshape %a {shape=[N, 2, 8]}
        %p: f32[N, 8, 2] = permute %r {dims=[0, 2, 1]}
        %q: f32[N, 16] = reshape %p {shape=[N, 16]}
        %b.weight: f32[5, 16] = weight
        %b: f32[N, 5] = linear %q, %b.weight
        """
    )
    (outer, n), (inner, m) = graph.widths
    network, x = network_of(graph, dtype=F64), inputs_of(graph, dtype=F64)
    narrowed = network.apply(f"resize{{{inner}={m // 4}}}")
    both = network.apply(f"resize{{{outer}={n + 1}, {inner}={m // 4}}}")
    assert dict(both.widths) == {outer: 3, inner: 2}
    assert difference(narrowed, both, x) < EXACT


@nets
def test_growing_by_initialising_keeps_the_old_entries(name: str) -> None:
    network = source(name)
    sizes = {w: n + 2 for w, n in network.widths.items()}
    how = Resize(tuple(sizes.items()), grow="initialise")
    result = network.apply(str(how), seed=11)
    again, other = network.apply(str(how), seed=11), network.apply(str(how), seed=12)
    for op in network.graph.stored:
        old, new = network.values[op.name], result.values[op.name]
        assert bool(torch.isfinite(new).all())
        chosen = new
        for axis, term in enumerate(op.type.axes):
            before, after = labels(term, network.widths), labels(term, result.widths)
            where = [i for i, l in enumerate(after) if all(k < network.widths[w] for w, k in l)]
            assert [after[i] for i in where] == before
            chosen = chosen.index_select(axis, torch.tensor(where))
        assert torch.equal(chosen, old), op.name
        assert torch.equal(again.values[op.name], new)
    assert any(not torch.equal(other.values[n], result.values[n]) for n in result.values)


@given(terms, st.data())
@settings(max_examples=150)
def test_the_gather_index_of_any_term(axis: object, data: st.DataObject) -> None:
    """For each new index the old one that it is made of, by the written-out meaning of the term."""
    maps: dict[str, Tensor] = {}
    for width, n in SIZES.items():
        if data.draw(st.booleans()):
            maps[width] = torch.tensor(data.draw(st.lists(st.integers(-1, n - 1), min_size=1, max_size=n + 2)))
    new_sizes = {w: len(maps[w]) if w in maps else n for w, n in SIZES.items()}
    old = labels(axis, SIZES, batch=1)  # pyright: ignore[reportArgumentType]
    found = gather_index(axis, SIZES, maps)  # pyright: ignore[reportArgumentType]
    expected = labels(axis, new_sizes, batch=1)  # pyright: ignore[reportArgumentType]
    assert len(found) == len(expected)
    for index, label in zip(found.tolist(), expected, strict=True):
        came = tuple((w, int(maps[w][i]) if w in maps else i) for w, i in label)
        if any(i < 0 for _, i in came):
            assert index == -1
        else:
            assert old[index] == came


def test_importance_says_which_channels_stay() -> None:
    """Channels of large weights stay; a batch norm's scale speaks where it is asked."""
    graph: Graph = ZOO["mlp"]
    network = source("mlp")
    loud = {3, 7, 8, 15}
    gain = torch.tensor([100.0 if i in loud else 0.01 for i in range(16)], dtype=F64)
    weight = network.values["fc1.weight"] * gain[:, None]
    for importance in ("l1", "l2"):
        found = Resize((("fc1", 4),), importance=importance).index_map(  # pyright: ignore[reportArgumentType]
            with_values(network, {"fc1.weight": weight}), network.graph, "fc1", 4, Context()
        )
        assert set(found.tolist()) == loud and found.tolist() == sorted(loud)
    scaled = with_values(network, {"bn1.weight": gain})
    assert set(Resize(importance="batch-norm").index_map(scaled, scaled.graph, "fc1", 4, Context()).tolist()) == loud
    assert set(Resize().index_map(scaled, scaled.graph, "fc1", 4, Context()).tolist()) != loud
    assert graph.widths == (("fc1", 16), ("fc2", 16))


def test_importance_of_a_width_behind_a_flatten_and_a_concat_is_summed_over_its_indices() -> None:
    network = source("concat")
    fc = network.values["fc.weight"].clone()
    a = [i for i, l in enumerate(labels(network.graph.types["fc.weight"].axes[1], network.widths)) if ("a", 2) in l]
    fc[:, a] *= 1000
    found = Resize().index_map(with_values(network, {"fc.weight": fc}), network.graph, "a", 1, Context())
    assert found.tolist() == [2]


def test_the_widths_experiment() -> None:
    """Bar 4: 16-16-16-5 with batch norms becomes 16-32-64-5, the norms follow, the outputs stay within 1e-5 in f32."""
    network = network_of(ZOO["mlp"])
    result = network.apply("resize{fc1=32, fc2=64}")
    shapes = {n: tuple(t.shape) for n, t in result.values.items()}
    assert [shapes[f"fc{i}.weight"] for i in (1, 2, 3)] == [(32, 16), (64, 32), (5, 64)]
    assert {shapes[f"bn1.{n}"] for n in ("mean", "var", "weight", "bias")} == {(32,)}
    assert {shapes[f"bn2.{n}"] for n in ("mean", "var")} == {(64,)}
    x = inputs_of(ZOO["mlp"], batch=64)
    assert x[0].dtype == torch.float32 == outputs(result, x)[0].dtype
    assert float((outputs(network, x)[0] - outputs(result, x)[0]).abs().max()) < 1e-5
