"""Random quantized graphs: layers, activations, pools, residuals and quantizes of all kinds in any order."""

from __future__ import annotations

import random

ACTIVATIONS = ("relu", "relu", "relu", "relu6", "leaky_relu", "tanh", "sigmoid", "hardtanh", "clamp", "neg", "gelu")


class Builder:
    """The lines of a graph, and the values that may be read next: name, axes, whether quantized."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        pick = self.random.random()
        shape = "N, 4, 8, 8" if pick < 0.6 else "N, 8" if pick < 0.88 else "N, 3, 8"
        self.lines: list[str] = []
        self.values: list[tuple[str, str, bool]] = [("x", shape, False)]
        self.types = {"x": "f32"}
        self.shape = shape

    def add(self, prefix: str, type: str, shape: str, how: str) -> str:
        name = f"{prefix}{len(self.lines)}"
        self.lines.append(f"%{name}: {type}[{shape}] = {how}")
        if how != "weight":
            self.values.append((name, shape, type != "f32"))
        self.types[name] = type
        return name

    def encoding(self) -> str:
        pick, chance = self.random.choice, self.random.random
        bits = pick([8, 8, 4, 6, 16] if chance() < 0.2 else [8, 8, 4, 5])
        signed = chance() < 0.25
        zero = pick([0, 0, -2] if signed else [0, 0, 3])
        return f"{'i' if signed else 'u'}{bits}<{pick(['0.03', '0.1', '2^-4'])}{f', {zero}' if zero else ''}>"

    def step(self) -> None:
        name, shape, quantized = self.random.choice(self.values[-3:])
        choice = self.random.random()
        if choice < 0.38:
            self.layer(name, shape, quantized)
        elif choice < 0.6:
            kind = self.random.choice(ACTIVATIONS)
            self.add("a", "f32", shape, f"{kind} %{name}" + (" {min=-0.5, max=1.0}" if kind == "clamp" else ""))
        elif choice < 0.8:
            self.add("q", self.encoding(), shape, f"quantize %{name}")
        elif choice < 0.9:
            other = self.random.choice([v for v in self.values if v[1] == shape])
            self.add("s", "f32", shape, f"{self.random.choice(['add', 'mul', 'sub'])} %{name}, %{other[0]}")
        elif shape.count(",") == 3:
            self.move(name, shape)

    def layer(self, name: str, shape: str, quantized: bool) -> None:
        pick, chance = self.random.choice, self.random.random
        if not quantized and chance() < 0.8:
            name, quantized = self.add("q", self.encoding(), shape, f"quantize %{name}"), True
        rare = ["i8<per 0>", "i4<per 0>", "i8<0.02>", "u8<0.005>", "f32"]
        format = pick(rare if chance() < 0.4 else ["i8<per 0>", "i6<per 0>"])
        axes, out = shape.split(", "), pick([4, 8])
        image = len(axes) == 4
        bias = ""
        if chance() < 0.7:
            codes = quantized and "per" in format and chance() < 0.8
            bias = f", %{self.add('b', 'i32<per 0>' if codes else 'f32', str(out), 'weight')}"
        into = axes[1] if image else axes[-1]
        weight = self.add("w", format, f"{out}, {into}" + (", 1, 1" if image else ""), "weight")
        result = f"N, {out}, {axes[2]}, {axes[3]}" if image else ", ".join([*axes[:-1], str(out)])
        self.add("h", "f32", result, f"{'conv2d' if image else 'linear'} %{name}, %{weight}{bias}")

    def move(self, name: str, shape: str) -> None:
        _, channels, height, width = shape.split(", ")
        if height != "1" and self.random.random() < 0.6:
            kind = self.random.choice(["max_pool2d", "max_pool2d", "avg_pool2d"])
            small = f"N, {channels}, {int(height) // 2}, {int(width) // 2}"
            self.add(
                "p",
                self.types[name] if kind == "max_pool2d" else "f32",
                small,
                f"{kind} %{name} {{kernel_size=[2, 2], stride=[2, 2]}}",
            )
        else:
            flat = f"N, {int(channels) * int(height) * int(width)}"
            self.add("f", self.types[name], flat, f"reshape %{name} {{shape=[{flat}]}}")

    def text(self) -> str:
        """The graph; it returns every value that nothing reads, and now and then one more."""
        read = {word.strip(",") for line in self.lines for word in line.split(" = ")[1].split() if word[0] == "%"}
        outputs = [name for name, _, _ in self.values[1:] if f"%{name}" not in read]
        if self.random.random() < 0.2 and len(self.values) > 2:
            outputs.append(self.random.choice(self.values[1:])[0])
        returned = ", ".join(f"%{name}" for name in dict.fromkeys(outputs or [self.values[-1][0]]))
        body = "\n  ".join(self.lines)
        return f"graph @random(%x: f32[{self.shape}]) {{\n  {body}\n  return {returned}\n}}"


def random_graph(seed: int) -> str:
    """The text of a random graph with at least one op."""
    builder = Builder(seed)
    for _ in range(builder.random.randint(3, 9)):
        builder.step()
    while not builder.lines:
        builder.step()
    return builder.text()
