"""Which branches of a network can go, what they are called, and that the network without one is the network whose
last scale of that branch is zero."""

from __future__ import annotations

import pytest
import torch
from nasc.compiler.analyses.branches import branches
from nasc.compiler.frontend.lower import lower_module
from nasc.compiler.network import Network
from nasc.compiler.passes import PassError
from nasc.ir import NascError, UsageError
from support.networks import difference, free, network_of, with_values
from torch import Tensor, nn

torch.set_num_threads(1)


class Block(nn.Module):
    """A residual block of convolutions, with a projection where it changes the shape."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside)
        self.conv2, self.bn2 = nn.Conv2d(outside, outside, 3, padding=1), nn.BatchNorm2d(outside)
        self.down = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        found = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(found + self.down(x))


class Half(nn.Module):
    """A transformer's block with norms before, a layer scale behind each half."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attn = nn.MultiheadAttention(size, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))
        self.scale1, self.scale2 = nn.Parameter(torch.randn(size)), nn.Parameter(torch.randn(size))
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.drop(self.attn(y, y, y, need_weights=False)[0] * self.scale1)
        return x + self.drop(self.mlp(self.norm2(x)) * self.scale2)


class Net(nn.Module):
    """Both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(Block(3, 4), Block(4, 4), Block(4, 4))
        self.blocks = nn.Sequential(Half(4), Half(4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.layer1(x).flatten(2).transpose(1, 2)).mean(1))


@pytest.fixture(scope="module")
def net() -> Network:
    torch.manual_seed(0)
    model = Net().double()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.bias)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return lower_module(model, (images(),))


def images() -> Tensor:
    return torch.randn(3, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


SCALES = {
    "layer1.1": ("layer1.1.bn2.weight", "layer1.1.bn2.bias"),
    "layer1.2": ("layer1.2.bn2.weight", "layer1.2.bn2.bias"),
    "blocks.0.attn": ("blocks.0.scale1",),
    "blocks.0.mlp": ("blocks.0.scale2",),
    "blocks.1.attn": ("blocks.1.scale1",),
    "blocks.1.mlp": ("blocks.1.scale2",),
}


def test_branches_are_named_by_the_users_modules(net: Network) -> None:
    assert [b.name for b in branches(net.graph)] == list(SCALES)
    first = branches(net.graph)[0]
    assert first.layers == ("layer1.1.conv1", "layer1.1.conv2")
    assert {"layer1.1.bn1.running_mean", "layer1.1.conv1.bias", "layer1.1.bn2"} <= set(first.ops)
    assert (first.identity, first.sum) == ("layer1.0.relu_1", "layer1.1.add")


@pytest.mark.parametrize("name", [*SCALES, "blocks.*", "*"])
def test_without_a_branch_is_with_its_last_scale_zero(net: Network, name: str) -> None:
    import fnmatch

    chosen = [n for n in SCALES if fnmatch.fnmatchcase(n, name)]
    zero = {v: torch.zeros_like(net.weights.recipe(v).tensor) for n in chosen for v in SCALES[n]}
    dropped = net.apply(f"drop{{block={name}}}")
    assert difference(with_values(net, zero), dropped, (images(),)) < 1e-12
    assert difference(net, dropped, (images(),)) > 1e-3, "the control: the branch computes something"
    almost = dict(list(zero.items())[1:])
    assert difference(with_values(net, almost), dropped, (images(),)) > 1e-3, "the control: one scale left"
    assert [b.name for b in branches(dropped.graph)] == [n for n in SCALES if n not in chosen]
    layers = {layer for b in branches(net.graph) if b.name in chosen for layer in b.layers}
    assert layers.isdisjoint(op.name for op in dropped.graph.ops)
    assert set(dropped.weights) == {op.name for op in dropped.graph.stored}


def test_names_of_sums_and_the_order_of_names_do_not_matter(net: Network) -> None:
    by_name = net.apply("drop{block=[blocks.1.mlp, layer1.1]}")
    assert net.apply("drop{block=[layer1.1.add, blocks.1.mlp]}").key == by_name.key
    assert net.apply("drop{block=layer1.1} | drop{block=blocks.1.mlp}").key == by_name.key


def test_what_is_left_resizes_and_folds(net: Network) -> None:
    small = net.apply("drop{block=[layer1.1, blocks.*]} | resize{layer1.2.conv1=2} | fold-batch-norm")
    assert small.graph.sizes["layer1.2.conv1"] == 2
    assert "layer1.1.conv1" not in small.graph.sizes
    assert small(images()).shape == (3, 3)


def test_a_block_that_changes_the_shape_is_refused_at_the_users_line(net: Network) -> None:
    with pytest.raises(
        PassError, match=r"test_branches\.py:\d+: error: add %layer1.0.add: no side is the other's source"
    ) as raised:
        net.apply("drop{block=layer1.0}")
    assert "nasc space" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drop{block=layer1.11}", "no block that can be dropped matches 'layer1.11'\n  Did you mean layer1.1"),
        ("drop", "drop needs the option 'block'"),
        ("drop{block=[]}", "block names nothing"),
        ("drop{blok=a}", "drop has no option 'blok'"),
    ],
)
def test_what_is_refused(net: Network, text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        net.apply(text)
    assert message in str(raised.value)


def test_sums_without_a_layer_or_without_a_source_are_no_branches() -> None:
    graph = free(
        """
        %a.weight: f32[16, 16] = weight
        %a: f32[N, 16] = linear %x, %a.weight
        %act: f32[N, 16] = relu %a
        %light: f32[N, 16] = add %a, %act
        %position: f32[16] = weight
        %moved: f32[N, 16] = add %light, %position
        %twice: f32[N, 16] = add %moved, %moved
        %b.weight: f32[16, 16] = weight
        %b: f32[N, 16] = linear %x, %b.weight
        %sum: f32[N, 16] = add %twice, %b
        """
    )
    assert branches(graph) == ()
    with pytest.raises(NascError, match="There is none here"):
        network_of(graph).apply("drop{block=a}")


def test_branches_of_a_long_chain_are_found_in_time() -> None:
    lines = ["%s0.w: f32[16, 16] = weight", "%s0: f32[N, 16] = linear %x, %s0.w"]
    for i in range(400):
        lines += [f"%b{i}.w: f32[16, 16] = weight", f"%b{i}: f32[N, 16] = linear %s{i}, %b{i}.w"]
        lines += [f"%s{i + 1}: f32[N, 16] = add %s{i}, %b{i}"]
    network = network_of(free("\n".join(lines)))
    assert len(branches(network.graph)) == 400
    assert len(network.apply("drop{block=*}").graph.ops) == 2
