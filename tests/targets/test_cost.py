"""Static costs against hand counts, against torchvision's published figures, and against fvcore."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
import torchvision
from nasc.ir import Graph
from nasc.targets import Cost, static_cost
from nasc.targets.cost import LayerCost
from nasc.targets.counting import outdated, uncounted
from torch import nn

from .conftest import graph_of

SMALL = """
graph @small(%image: f32[N, 3, 8, 8]) {
  width $c = 4
  %x.q: u8<2^-4>[N, 3, 8, 8] = quantize %image
  %conv.weight: i4<per 0>[$c, 3, 3, 3] = weight
  %conv.bias: i32<per 0>[$c] = weight
  %conv: f32[N, $c, 8, 8] = conv2d %x.q, %conv.weight, %conv.bias {padding=[1, 1]}
  %act: f32[N, $c, 8, 8] = relu %conv
  %pool: f32[N, $c, 4, 4] = max_pool2d %act {kernel_size=[2, 2], stride=[2, 2]}
  %flat: f32[N, $c*16] = reshape %pool {shape=[N, $c*16]}
  %fc.weight: f32[10, $c*16] = weight
  %fc: f32[N, 10] = linear %flat, %fc.weight
  return %fc
}"""


def test_layers_are_counted_by_hand() -> None:
    cost = static_cost(graph_of(SMALL))
    conv = LayerCost("conv", "conv2d", (4, 3, 3, 3), (1, 4, 8, 8), 4 * 27 + 4, 4 * 64 * 27, 4, 8)
    fc = LayerCost("fc", "linear", (10, 64), (1, 10), 640, 640, 32, 32)
    assert cost.layers == (conv, fc)
    assert cost.macs == 6912 + 640
    assert cost.bit_operations == 6912 * 4 * 8 + 640 * 32 * 32
    assert cost.parameters == 108 + 4 + 640


def test_sizes_count_bits_and_steps() -> None:
    cost = static_cost(graph_of(SMALL))
    codes = 108 * 4 + 4 * 32 + 640 * 32
    steps = 4 + 1  # of conv's weights, and of its input; those of the i32 bias are their products
    assert cost.weight_bits == codes + 32 * steps
    assert cost.weight_bytes == -(-cost.weight_bits // 8)
    assert cost.average_bits == Fraction(codes, 108 + 4 + 640)
    odd = static_cost(
        graph_of(SMALL.replace("i4<per 0>", "i3<0.5>").replace("%conv.bias: i32<per 0>", "%conv.bias: f32"))
    )
    assert odd.weight_bits == 108 * 3 + 4 * 32 + 640 * 32 + 32 * 2
    assert odd.weight_bytes == (odd.weight_bits + 7) // 8


def test_every_kind_of_op_has_a_rule() -> None:
    """A new op comes with its count, or this fails."""
    assert uncounted() == ()
    assert uncounted(("relu", "frobnicate", "linear")) == ("frobnicate",)


def test_each_node_is_counted_by_hand() -> None:
    graph = graph_of(SMALL)
    nodes = {n.name: n for n in static_cost(graph).nodes}
    assert list(nodes) == ["x.q", "conv", "act", "pool", "flat", "fc"]
    conv = nodes["conv"]
    assert (conv.macs, conv.operations, conv.parameters) == (6912, 256, 112)  # the bias is added to each of 256 results
    assert conv.bit_operations == 6912 * 32
    assert (conv.read_bytes, conv.written_bytes, conv.stored_bytes) == (192, 1024, 54 + 16)
    assert conv.intensity == (2 * 6912 + 256) / (192 + 1024 + 70)
    assert conv.weight_bits == 108 * 4 + 4 * 32 + 4 * 32  # codes, biases, and a step per channel
    assert (nodes["x.q"].operations, nodes["x.q"].weight_bits) == (2 * 192, 32)
    assert (nodes["act"].operations, nodes["pool"].operations, nodes["flat"].operations) == (256, 4 * 64, 0)
    assert nodes["pool"].live_bytes == 1024 + 256


@pytest.mark.parametrize("build", [lambda: graph_of(SMALL), lambda: vgg11(), lambda: resnet18()])
def test_totals_are_the_sums_of_the_nodes(build: Callable[[], Graph]) -> None:
    cost = static_cost(build())
    assert sum(n.parameters for n in cost.nodes) == cost.parameters
    assert sum(n.weight_bits for n in cost.nodes) == cost.weight_bits
    assert max(n.live_bytes for n in cost.nodes) == cost.peak_activation_bytes
    assert cost.macs == sum(layer.macs for layer in cost.layers)
    assert cost.bit_operations == sum(layer.bit_operations for layer in cost.layers)


def test_a_shared_tensor_counts_once() -> None:
    text = """graph @t(%x: f32[N, 4]) {
      %w: f32[4, 4] = weight
      %a: f32[N, 4] = linear %x, %w
      %b: f32[N, 4] = linear %a, %w
      return %b
    }"""
    cost = static_cost(graph_of(text))
    assert [n.parameters for n in cost.nodes] == [16, 0]
    assert [n.stored_bytes for n in cost.nodes] == [64, 64]
    assert (cost.parameters, cost.macs) == (16, 32)


def test_statistics_are_stored_but_not_parameters() -> None:
    text = """graph @t(%x: f32[N, 4]) {
      %m: f32[4] = buffer
      %v: f32[4] = buffer
      %g: f32[4] = weight
      %y: f32[N, 4] = batch_norm %x, %m, %v, %g
      return %y
    }"""
    cost = static_cost(graph_of(text))
    assert (cost.parameters, cost.weight_bytes, cost.layers) == (4, 48, ())
    assert cost.average_bits == 32


def test_networks_without_tensors_cost_nothing() -> None:
    cost = static_cost(graph_of("graph @t(%x: f32[N, 4]) {\n  %y: f32[N, 4] = relu %x\n  return %y\n}"))
    assert (cost.parameters, cost.weight_bytes, cost.macs, cost.average_bits) == (0, 0, 0, 0)


def test_peak_memory_follows_who_still_needs_what() -> None:
    """image 768 B; codes 192 B; conv and relu are one buffer of 1024 B; pool 256 B, which the reshape shares."""
    assert static_cost(graph_of(SMALL)).peak_activation_bytes == max(768 + 192, 192 + 1024, 1024 + 256, 256 + 40)
    quantized = SMALL.replace(
        "  %pool: f32[N, $c, 4, 4] = max_pool2d %act",
        "  %q: u4<0.5>[N, $c, 8, 8] = quantize %act\n  %pool: u4<0.5>[N, $c, 4, 4] = max_pool2d %q",
    ).replace("%flat: f32", "%flat: u4<0.5>")
    assert static_cost(graph_of(quantized)).peak_activation_bytes == max(768 + 192, 192 + 128, 128 + 32, 32 + 40)


def test_peak_memory_keeps_a_residual_and_outputs_alive() -> None:
    text = """graph @t(%x: f32[N, 100]) {
      %a: f32[N, 100] = relu %x
      %b: f32[N, 100] = tanh %a
      %w: f32[10, 100] = weight
      %c: f32[N, 10] = linear %b, %w
      %d: f32[N, 100] = add %a, %b
      return %d, %c
    }"""
    # a, b, the 40 bytes of c, and d, of which a and b are still needed by d itself
    assert static_cost(graph_of(text)).peak_activation_bytes == 400 + 400 + 40 + 400


def test_records_carry_their_kind() -> None:
    records = {r.name: r for r in static_cost(graph_of(SMALL)).records()}
    assert {r.kind for r in records.values()} == {"exact"}
    assert records["macs"].value == 7552
    assert records["weight_bytes"].unit == "B"
    with pytest.raises(ValueError, match="names its source"):
        Cost("latency", 1e-3, "s", "measured")
    assert Cost("latency", 1e-3, "s", "measured", 0.9e-3, 1.1e-3, 40, "cpu").samples == 40


class Text:
    """Writes a convolutional network as text, with the shapes of its values."""

    def __init__(self, size: int, channels: int = 3) -> None:
        self.lines: list[str] = []
        self.shapes = {"image": (channels, size, size)}
        self.head = f"graph @net(%image: f32[N, {channels}, {size}, {size}]) {{"

    def put(self, shape: tuple[int, ...], line: str) -> str:
        name = f"v{len(self.lines)}"
        self.lines.append(f"%{name}: f32[N, {', '.join(map(str, shape))}] = {line}")
        self.shapes[name] = shape
        return name

    def stored(self, *shape: int, kind: str = "weight") -> str:
        name = f"w{len(self.lines)}"
        self.lines.append(f"%{name}: f32[{', '.join(map(str, shape))}] = {kind}")
        return name

    def conv(self, x: str, out: int, k: int, stride: int = 1, pad: int = 0, groups: int = 1, bias: bool = False) -> str:
        into, size, _ = self.shapes[x]
        n = (size + 2 * pad - k) // stride + 1
        operands = f"%{x}, %{self.stored(out, into // groups, k, k)}" + (f", %{self.stored(out)}" if bias else "")
        options = f"stride=[{stride}, {stride}], padding=[{pad}, {pad}], groups={groups}"
        return self.put((out, n, n), f"conv2d {operands} {{{options}}}")

    def norm(self, x: str) -> str:
        c = self.shapes[x][0]
        affine = [self.stored(c), self.stored(c)]
        statistics = [self.stored(c, kind="buffer"), self.stored(c, kind="buffer")]
        return self.put(self.shapes[x], "batch_norm " + ", ".join(f"%{n}" for n in (x, *statistics, *affine)))

    def relu(self, x: str) -> str:
        return self.put(self.shapes[x], f"relu %{x}")

    def add(self, x: str, y: str) -> str:
        return self.put(self.shapes[x], f"add %{x}, %{y}")

    def pool(self, x: str, k: int, stride: int, pad: int = 0) -> str:
        c, n, _ = self.shapes[x]
        n = (n + 2 * pad - k) // stride + 1
        return self.put(
            (c, n, n),
            f"max_pool2d %{x} {{kernel_size=[{k}, {k}], stride=[{stride}, {stride}], padding=[{pad}, {pad}]}}",
        )

    def flat(self, x: str, size: int) -> str:
        c = self.shapes[x][0]
        x = self.put((c, size, size), f"adaptive_avg_pool2d %{x} {{output_size=[{size}, {size}]}}")
        return self.put((c * size * size,), f"reshape %{x} {{shape=[N, {c * size * size}]}}")

    def linear(self, x: str, out: int) -> str:
        weight, bias = self.stored(out, self.shapes[x][0]), self.stored(out)
        return self.put((out,), f"linear %{x}, %{weight}, %{bias}")

    def graph(self, output: str) -> Graph:
        body = "\n  ".join(self.lines)
        return graph_of(f"{self.head}\n  {body}\n  return %{output}\n}}")


def alexnet() -> Graph:
    net = Text(224)
    x = net.pool(net.relu(net.conv("image", 64, 11, 4, 2, bias=True)), 3, 2)
    x = net.pool(net.relu(net.conv(x, 192, 5, 1, 2, bias=True)), 3, 2)
    for out in (384, 256, 256):
        x = net.relu(net.conv(x, out, 3, 1, 1, bias=True))
    x = net.flat(net.pool(x, 3, 2), 6)
    for out in (4096, 4096):
        x = net.relu(net.linear(x, out))
    return net.graph(net.linear(x, 1000))


def vgg11() -> Graph:
    net, x = Text(224), "image"
    for out in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):
        x = net.relu(net.conv(x, out, 3, 1, 1, bias=True)) if out else net.pool(x, 2, 2)
    x = net.flat(x, 7)
    for out in (4096, 4096):
        x = net.relu(net.linear(x, out))
    return net.graph(net.linear(x, 1000))


def resnet18() -> Graph:
    net = Text(224)
    x = net.pool(net.relu(net.norm(net.conv("image", 64, 7, 2, 3))), 3, 2, 1)
    for out in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if block == 0 and out > 64 else 1
            y = net.relu(net.norm(net.conv(x, out, 3, stride, 1)))
            y = net.norm(net.conv(y, out, 3, 1, 1))
            skip = net.norm(net.conv(x, out, 1, stride)) if stride == 2 else x
            x = net.relu(net.add(y, skip))
    return net.graph(net.linear(net.flat(x, 1), 1000))


def mobilenet_v2() -> Graph:
    net = Text(224)
    x = net.norm(net.conv("image", 32, 3, 2, 1))
    for expand, out, repeats, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for i in range(repeats):
            stride, into = first if i == 0 else 1, net.shapes[x][0]
            y = net.norm(net.conv(x, into * expand, 1)) if expand > 1 else x
            y = net.norm(net.conv(y, into * expand, 3, stride, 1, groups=into * expand))
            y = net.norm(net.conv(y, out, 1))
            x = net.add(x, y) if stride == 1 and into == out else y
    x = net.norm(net.conv(x, 1280, 1))
    return net.graph(net.linear(net.flat(x, 1), 1000))


PUBLISHED = {
    "alexnet": (alexnet, torchvision.models.AlexNet_Weights.IMAGENET1K_V1),
    "vgg11": (vgg11, torchvision.models.VGG11_Weights.IMAGENET1K_V1),
    "resnet18": (resnet18, torchvision.models.ResNet18_Weights.IMAGENET1K_V1),
    "mobilenet_v2": (mobilenet_v2, torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_to_the_last_digit(name: str) -> None:
    """torchvision publishes 10^9 multiply-additions in three digits, and parameters exactly."""
    build, weights = PUBLISHED[name]
    cost = static_cost(build())
    assert round(cost.macs / 1e9, 3) == weights.meta["_ops"]
    assert cost.parameters == weights.meta["num_params"]


def fvcore_counts(module: nn.Module, *shape: int) -> dict[str, int]:
    """fvcore's count by op: one per multiply-addition."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(module.eval(), torch.zeros(1, *shape))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return dict(analysis.by_operator())


def test_fvcore_counts_the_same_for_an_mlp() -> None:
    module = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5))
    text = """graph @mlp(%x: f32[N, 16]) {
      %a: f32[64, 16] = weight
      %b: f32[32, 64] = weight
      %c: f32[5, 32] = weight
      %u: f32[N, 64] = linear %x, %a
      %v: f32[N, 32] = linear %u, %b
      %y: f32[N, 5] = linear %v, %c
      return %y
    }"""
    cost = static_cost(graph_of(text))
    assert fvcore_counts(module, 16) == {"linear": cost.macs}
    assert cost.macs == 16 * 64 + 64 * 32 + 32 * 5


def test_fvcore_adds_norms_and_pools_for_a_cnn() -> None:
    """fvcore counts layers as we do, and on top two to four per element of a norm and one per element of a mean."""
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, groups=8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
    net = Text(16)
    x = net.pool(net.relu(net.norm(net.conv("image", 8, 3, 1, 1, bias=True))), 2, 2)
    cost = static_cost(net.graph(net.linear(net.flat(net.conv(x, 8, 3, groups=8, bias=True), 1), 10)))
    found = fvcore_counts(module, 3, 16, 16)
    assert found.pop("batch_norm") == 2 * 8 * 16 * 16
    assert found.pop("adaptive_avg_pool2d") == 8 * 6 * 6
    assert {k: v for k, v in found.items() if v} == {
        "conv": sum(layer.macs for layer in cost.layers if layer.kind == "conv2d"),
        "linear": sum(layer.macs for layer in cost.layers if layer.kind == "linear"),
    }


def macs_by_kind(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in static_cost(graph_of(text)).nodes:
        if node.macs:
            found[node.kind] = found.get(node.kind, 0) + node.macs
    return found


class Called(nn.Module):
    """A module around a function of tensors."""

    def __init__(self, function: Callable[..., torch.Tensor], weight: torch.Tensor | None = None) -> None:
        super().__init__()
        self.function = function
        self.weight = None if weight is None else nn.Parameter(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, x if self.weight is None else self.weight)


def test_fvcore_counts_the_same_for_products_of_two_activations() -> None:
    text = """graph @t(%x: f32[N, 6, 8]) {
      %y: f32[N, 8, 6] = permute %x {dims=[0, 2, 1]}
      %z: f32[N, 6, 6] = matmul %x, %y
      return %z
    }"""
    found = fvcore_counts(Called(lambda x, _: x @ x.transpose(1, 2)), 6, 8)
    assert sum(found.values()) == macs_by_kind(text)["matmul"] == 6 * 6 * 8


def test_fvcore_counts_the_same_for_einsum() -> None:
    text = """graph @t(%x: f32[N, 6, 8]) {
      %z: f32[N, 6, 6] = einsum %x, %x {equation="bik,bjk->bij"}
      return %z
    }"""
    found = fvcore_counts(Called(lambda x, y: torch.einsum("bik,bjk->bij", x, y)), 6, 8)
    assert sum(found.values()) == macs_by_kind(text)["einsum"] == 6 * 6 * 8


def test_several_operands_of_einsum_are_multiplied_from_the_left() -> None:
    text = """graph @t(%x: f32[N, 3, 4]) {
      %a: f32[4, 5] = weight
      %b: f32[5, 6] = weight
      %z: f32[N, 3, 6] = einsum %x, %a, %b {equation="bij,jk,kl->bil"}
      return %z
    }"""
    assert macs_by_kind(text) == {"einsum": 3 * 4 * 5 + 3 * 5 * 6}


def test_transposed_convolutions_count_their_inputs() -> None:
    """Each value of the input meets all weights of its channel; fvcore counts them the same without groups."""
    text = """graph @t(%x: f32[N, 8, 5, 5]) {
      %w: f32[8, 6, 3, 3] = weight
      %y: f32[N, 6, 11, 11] = conv_transpose2d %x, %w {stride=[2, 2]}
      return %y
    }"""
    layer = nn.ConvTranspose2d(8, 6, 3, stride=2, bias=False)
    assert fvcore_counts(layer, 8, 5, 5)["conv"] == macs_by_kind(text)["conv_transpose2d"] == 8 * 25 * 6 * 9
    grouped = text.replace("[8, 6, 3, 3]", "[8, 3, 3, 3]").replace("{stride", "{groups=2, stride")
    assert macs_by_kind(grouped)["conv_transpose2d"] == 8 * 25 * 3 * 9


ATTENTION = """graph @t(%x: {format}[N, 2, 6, 8]) {{
  %y: {format}[N, 2, 6, 8] = scaled_dot_product_attention %x, %x, %x {{scale=0.35}}
  return %y
}}"""


def test_attention_is_counted_where_fvcore_sees_nothing() -> None:
    """Scores and weighted values: two products, as torchvision counts for its transformers."""
    attention = nn.functional.scaled_dot_product_attention
    assert sum(fvcore_counts(Called(lambda x, _: attention(x, x, x)), 2, 6, 8).values()) == 0
    cost = static_cost(graph_of(ATTENTION.format(format="f32")))
    assert cost.macs == 2 * (2 * 6 * 6 * 8)
    assert cost.bit_operations == cost.macs * 32 * 32
    assert static_cost(graph_of(ATTENTION.format(format="f16"))).bit_operations == cost.macs * 16 * 16


def test_fvcore_adds_five_operations_per_element_of_a_layer_norm() -> None:
    text = """graph @t(%x: f32[N, 6, 8]) {
      %w: f32[8] = weight
      %b: f32[8] = weight
      %y: f32[N, 6, 8] = layer_norm %x, %w, %b {normalized_shape=[8]}
      return %y
    }"""
    assert fvcore_counts(nn.LayerNorm(8), 6, 8) == {"layer_norm": 5 * 48}
    node = static_cost(graph_of(text)).nodes[0]
    assert (node.macs, node.operations) == (0, 7 * 48)


def test_rules_are_those_of_todays_kinds() -> None:
    assert outdated() == ()
