"""Graphs in which widths meet everything that couples them: norms, flatten, concat, residual, groups, shuffles."""

from __future__ import annotations

from nasc.ir import Graph
from support.networks import free

IMAGE = "%x: f32[N, 3, 6, 6]"

MLP = free(
    """
    %fc1.weight: f32[16, 16] = weight
    %fc1.bias: f32[16] = weight
    %fc1: f32[N, 16] = linear %x, %fc1.weight, %fc1.bias
    %bn1.mean: f32[16] = buffer
    %bn1.var: f32[16] = buffer
    %bn1.weight: f32[16] = weight
    %bn1.bias: f32[16] = weight
    %bn1: f32[N, 16] = batch_norm %fc1, %bn1.mean, %bn1.var, %bn1.weight, %bn1.bias
    %relu1: f32[N, 16] = relu %bn1
    %fc2.weight: f32[16, 16] = weight
    %fc2: f32[N, 16] = linear %relu1, %fc2.weight
    %bn2.mean: f32[16] = buffer
    %bn2.var: f32[16] = buffer
    %bn2: f32[N, 16] = batch_norm %fc2, %bn2.mean, %bn2.var
    %relu2: f32[N, 16] = relu %bn2
    %fc3.weight: f32[5, 16] = weight
    %fc3.bias: f32[5] = weight
    %fc3: f32[N, 5] = linear %relu2, %fc3.weight, %fc3.bias
    """
)
"""16-16-16-5 with batch norms."""

FLATTEN = free(
    """
    %a.weight: f32[6, 3, 3, 3] = weight
    %a.bias: f32[6] = weight
    %a: f32[N, 6, 4, 4] = conv2d %x, %a.weight, %a.bias
    %a.slopes: f32[6] = weight
    %act: f32[N, 6, 4, 4] = prelu %a, %a.slopes
    %pool: f32[N, 6, 2, 2] = max_pool2d %act {kernel_size=[2, 2], stride=[2, 2]}
    %flat: f32[N, 24] = reshape %pool {shape=[N, 24]}
    %fc1.weight: f32[10, 24] = weight
    %fc1: f32[N, 10] = linear %flat, %fc1.weight
    %sig: f32[N, 10] = sigmoid %fc1
    %fc2.weight: f32[4, 10] = weight
    %fc2: f32[N, 4] = linear %sig, %fc2.weight
    """,
    IMAGE,
)
"""A convolution, one slope per channel, pooling, flatten."""

CONCAT = free(
    """
    %a.weight: f32[4, 3, 1, 1] = weight
    %a: f32[N, 4, 6, 6] = conv2d %x, %a.weight
    %b.weight: f32[6, 3, 3, 3] = weight
    %b: f32[N, 6, 6, 6] = conv2d %x, %b.weight {padding=[1, 1]}
    %both: f32[N, 17, 6, 6] = cat %a, %x, %b, %a {dim=1}
    %bn.mean: f32[17] = buffer
    %bn.var: f32[17] = buffer
    %bn.weight: f32[17] = weight
    %bn: f32[N, 17, 6, 6] = batch_norm %both, %bn.mean, %bn.var, %bn.weight
    %act: f32[N, 17, 6, 6] = silu %bn
    %last: f32[N, 6, 6, 17] = permute %act {dims=[0, 2, 3, 1]}
    %flat: f32[N, 612] = reshape %last {shape=[N, 612]}
    %fc.weight: f32[5, 612] = weight
    %fc: f32[N, 5] = linear %flat, %fc.weight
    """,
    IMAGE,
)
"""Four pieces side by side, one of them twice, flattened with the channels innermost."""

RESIDUAL = free(
    """
    %stem.weight: f32[8, 3, 3, 3] = weight
    %stem: f32[N, 8, 6, 6] = conv2d %x, %stem.weight {padding=[1, 1]}
    %a.weight: f32[6, 8, 3, 3] = weight
    %a: f32[N, 6, 6, 6] = conv2d %stem, %a.weight {padding=[1, 1]}
    %act: f32[N, 6, 6, 6] = relu %a
    %b.weight: f32[8, 6, 3, 3] = weight
    %b: f32[N, 8, 6, 6] = conv2d %act, %b.weight {padding=[1, 1]}
    %sum: f32[N, 8, 6, 6] = add %stem, %b
    %gate.weight: f32[8, 8] = weight
    %mean: f32[N, 8] = mean %sum {dim=[2, 3]}
    %gate: f32[N, 8] = linear %mean, %gate.weight
    %open: f32[N, 8] = sigmoid %gate
    %wide: f32[N, 8, 1, 1] = reshape %open {shape=[N, 8, 1, 1]}
    %gated: f32[N, 8, 6, 6] = mul %sum, %wide
    %pool: f32[N, 8, 1, 1] = adaptive_avg_pool2d %gated {output_size=[1, 1]}
    %flat: f32[N, 8] = reshape %pool {shape=[N, 8]}
    %fc.weight: f32[5, 8] = weight
    %fc.bias: f32[5] = weight
    %fc: f32[N, 5] = linear %flat, %fc.weight, %fc.bias
    """,
    IMAGE,
)
"""A residual, and a gate on its channels."""

GROUPED = free(
    """
    %a.weight: f32[8, 3, 1, 1] = weight
    %a: f32[N, 8, 6, 6] = conv2d %x, %a.weight
    %g.weight: f32[12, 2, 3, 3] = weight
    %g.bias: f32[12] = weight
    %g: f32[N, 12, 6, 6] = conv2d %a, %g.weight, %g.bias {padding=[1, 1], groups=4}
    %act: f32[N, 12, 6, 6] = relu %g
    %h.weight: f32[8, 3, 1, 1] = weight
    %h: f32[N, 8, 6, 6] = conv2d %act, %h.weight {groups=4}
    %c.weight: f32[5, 8, 6, 6] = weight
    %c: f32[N, 5, 1, 1] = conv2d %h, %c.weight
    """,
    IMAGE,
)
"""Grouped convolutions behind each other."""

DEPTHWISE = free(
    """
    %expand.weight: f32[10, 3, 1, 1] = weight
    %expand: f32[N, 10, 6, 6] = conv2d %x, %expand.weight
    %dw.weight: f32[10, 1, 3, 3] = weight
    %dw.bias: f32[10] = weight
    %dw: f32[N, 10, 6, 6] = conv2d %expand, %dw.weight, %dw.bias {padding=[1, 1], groups=10}
    %act: f32[N, 10, 6, 6] = hardswish %dw
    %twice.weight: f32[20, 1, 1, 1] = weight
    %twice: f32[N, 20, 6, 6] = conv2d %act, %twice.weight {groups=10}
    %project.weight: f32[4, 20, 1, 1] = weight
    %project: f32[N, 4, 6, 6] = conv2d %twice, %project.weight
    """,
    IMAGE,
)
"""Depthwise convolutions, one with two filters per channel."""

SHUFFLE = free(
    """
    %a.weight: f32[12, 3, 1, 1] = weight
    %a: f32[N, 12, 6, 6] = conv2d %x, %a.weight
    %r: f32[N, 3, 4, 6, 6] = reshape %a {shape=[N, 3, 4, 6, 6]}
    %p: f32[N, 4, 3, 6, 6] = permute %r {dims=[0, 2, 1, 3, 4]}
    %q: f32[N, 12, 6, 6] = reshape %p {shape=[N, 12, 6, 6]}
    %act: f32[N, 12, 6, 6] = tanh %q
    %b.weight: f32[5, 12, 6, 6] = weight
    %b: f32[N, 5, 1, 1] = conv2d %act, %b.weight
    """,
    IMAGE,
)
"""A channel shuffle."""

HEADS = free(
    """
    %qkv.weight: f32[24, 16] = weight
    %qkv.bias: f32[24] = weight
    %qkv: f32[N, 24] = linear %x, %qkv.weight, %qkv.bias
    %split: f32[N, 2, 4, 3] = reshape %qkv {shape=[N, 2, 4, 3]}
    %heads: f32[N, 4, 2, 3] = permute %split {dims=[0, 2, 1, 3]}
    %joined: f32[N, 4, 6] = reshape %heads {shape=[N, 4, 6]}
    %each.weight: f32[7, 6] = weight
    %each: f32[N, 4, 7] = linear %joined, %each.weight
    %act: f32[N, 4, 7] = gelu %each
    %out: f32[N, 28] = reshape %act {shape=[N, 28]}
    %fc.weight: f32[5, 28] = weight
    %fc: f32[N, 5] = linear %out, %fc.weight
    """
)
"""One layer's output split over heads, as attention does it."""

TIED = free(
    """
    %in.weight: f32[8, 16] = weight
    %in: f32[N, 8] = linear %x, %in.weight
    %shared: f32[8, 8] = weight
    %a: f32[N, 8] = linear %in, %shared
    %relu: f32[N, 8] = relu %a
    %b: f32[N, 8] = linear %relu, %shared
    %out.weight: f32[5, 8] = weight
    %out: f32[N, 5] = linear %b, %out.weight
    """
)
"""One weight for two layers, its both axes the same width."""

POSITION = free(
    """
    %in.weight: f32[8, 16] = weight
    %in: f32[N, 8] = linear %x, %in.weight
    %scale: f32[8] = buffer
    %scaled: f32[N, 8] = mul %in, %scale
    %offset: f32[1, 8] = weight
    %moved: f32[N, 8] = add %scaled, %offset
    %top: f32[N] = amax %moved {dim=[1]}
    %out.weight: f32[5, 8] = weight
    %out: f32[N, 5] = linear %moved, %out.weight
    return %out, %top
    """
)
"""Tensors that no layer owns, a maximum over channels, two outputs."""

ZOO: dict[str, Graph] = {
    "mlp": MLP,
    "flatten": FLATTEN,
    "concat": CONCAT,
    "residual": RESIDUAL,
    "grouped": GROUPED,
    "depthwise": DEPTHWISE,
    "shuffle": SHUFFLE,
    "heads": HEADS,
    "tied": TIED,
    "position": POSITION,
}
