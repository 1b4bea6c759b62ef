"""The trainable module: it is the network, gradients go straight through rounding, and it comes back whole."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nasc.compiler.execution import rounded
from nasc.compiler.module import GraphModule
from nasc.compiler.network import Network
from nasc.compiler.rounding import fake_quantized
from nasc.compiler.weights import Source, Store
from nasc.ir import Format, NascError, Step, Type, parse, text
from nasc.ir.axes import N
from support.drawing import integer_formats
from support.graphs import graph_of
from support.networks import inputs_of, network_of
from support.zoo import ZOO

NAMES = list(ZOO)
QUANTIZED = "quantize{weights=i4, activations=u6, biases=i8} | calibrate"


def quantized(name: str = "mlp", pipeline: str = QUANTIZED) -> Network:
    graph = ZOO[name]
    return network_of(graph).apply(pipeline, data=inputs_of(graph, batch=64)[0])


@pytest.mark.parametrize("name", NAMES)
def test_in_evaluation_the_module_is_the_network(name: str) -> None:
    for network in (network_of(ZOO[name]), quantized(name)):
        module, x = network.module().eval(), inputs_of(ZOO[name])
        with torch.no_grad():
            found = module(*x)
        want = network(*x)
        pairs = zip(found, want, strict=True) if isinstance(want, tuple) else [(found, want)]
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_not_trained_comes_back_as_it_was(name: str) -> None:
    for network in (network_of(ZOO[name]), quantized(name)):
        back = network.with_trained(network.module())
        assert back.graph == network.graph
        assert parse(text(back.graph)) == back.graph
        x = inputs_of(ZOO[name])
        pairs = (
            [(network(*x), back(*x))] if len(network.graph.outputs) == 1 else zip(network(*x), back(*x), strict=True)
        )
        assert all(torch.equal(a, b) for a, b in pairs)
        for op in network.graph.stored:
            assert torch.equal(network.weights.real(op.name), back.weights.real(op.name))


def test_parameters_have_the_names_of_the_graph() -> None:
    module = network_of(ZOO["mlp"]).module()
    assert {n for n, _ in module.named_parameters()} == {op.name for op in ZOO["mlp"].stored if op.kind == "weight"}
    assert {n for n, _ in module.named_buffers()} == {op.name for op in ZOO["mlp"].stored if op.kind == "buffer"}


def trained_on_noise(network: Network, steps: int = 30, **options: bool) -> tuple[GraphModule, list[float]]:
    """A module after a short training towards random outputs, and its losses."""
    torch.manual_seed(0)
    x, target = inputs_of(ZOO["mlp"], batch=64)[0], torch.randn(64, 5)
    module = network.module(**options).train()
    assert isinstance(module, GraphModule)
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-2)
    losses: list[float] = []
    for _ in range(steps):
        loss = (module(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return module, losses


def test_steps_are_learned_unless_they_are_to_stay() -> None:
    learned = {n for n, _ in quantized().module().named_parameters() if n.endswith("_octaves")}
    assert {"fc1.weight_octaves", "x.q_octaves", "fc3.bias_octaves"} <= learned
    network = quantized()
    module, losses = trained_on_noise(network, learn_steps=False)
    assert not any(n.endswith("_octaves") for n, _ in module.named_parameters())
    assert losses[-1] < losses[0]
    trained = network.with_trained(module)
    assert trained.graph == network.graph
    assert torch.equal(trained.weights.recipe("fc1.weight").steps, network.weights.recipe("fc1.weight").steps)  # type: ignore[attr-defined]


def test_learned_steps_come_back_as_powers_of_two_where_the_type_says_so() -> None:
    network = quantized(pipeline="quantize{weights=i4<2^?>, activations=u4<2^?>, biases=i8<2^?>} | calibrate")
    module, losses = trained_on_noise(network, 60)
    assert losses[-1] < losses[0]
    trained = network.with_trained(module)
    before, after = (torch.log2(n.weights.recipe("fc1.weight").steps) for n in (network, trained))  # type: ignore[attr-defined]
    assert torch.equal(after, after.round()) and not torch.equal(after, before)
    steps = [op.type.step for op in trained.graph.ops if op.type.step is not None]
    assert all(s.power_of_two for s in steps)
    assert all(s.value is None or math.frexp(s.value)[0] == 0.5 for s in steps)
    assert parse(text(trained.graph)) == trained.graph
    x = inputs_of(ZOO["mlp"])
    with torch.no_grad():
        assert torch.equal(trained(*x), module.eval()(*x)), "what is trained is what is taken back"


def test_learning_steps_mends_steps_that_are_badly_off() -> None:
    network = network_of(ZOO["mlp"])
    x = inputs_of(ZOO["mlp"], batch=256)[0]
    good = network.apply("quantize{weights=i4, activations=u4} | calibrate", data=x)
    module = good.module()
    with torch.no_grad():
        for name, held in module.named_parameters():
            if name.endswith("_octaves"):
                held.fill_(1.5)
    wanted, losses = network(x), []
    steps = [held for name, held in module.named_parameters() if name.endswith("_octaves")]
    optimizer = torch.optim.Adam(steps, lr=5e-2)
    for _ in range(40):
        loss = (module.eval()(x) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_training_moves_weights_and_steps_and_the_network_follows() -> None:
    torch.manual_seed(0)
    network = quantized()
    x, target = inputs_of(ZOO["mlp"], batch=64)[0], torch.randn(64, 5)
    module = network.module().train()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses: list[float] = []
    for _ in range(30):
        loss = (module(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    trained = network.with_trained(module)
    module.eval()
    with torch.no_grad():
        assert torch.equal(module(x), trained(x))
    assert parse(text(trained.graph)) == trained.graph
    assert trained.key != network.key
    assert not torch.equal(trained.weights.real("fc1.weight"), network.weights.real("fc1.weight"))
    assert not torch.equal(trained.values["bn1.mean"], network.values["bn1.mean"])
    assert str(trained.graph.types["x.q"]) != str(network.graph.types["x.q"])
    for op in network.graph.stored:
        assert trained.weights.array(op.name).dtype == network.weights.array(op.name).dtype


def test_training_leaves_the_source_as_it_was() -> None:
    """Trap of the older tool: trained weights leaked into the next trial through one cached graph."""
    network = network_of(ZOO["mlp"])
    before = {n: t.clone() for n, t in network.values.items()}
    x = inputs_of(ZOO["mlp"], batch=32)[0]
    first = network(x)
    module = network.module().train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
    network.with_trained(module)
    assert all(torch.equal(network.values[n], t) for n, t in before.items())
    assert torch.equal(network(x), first)
    assert torch.equal(network.module().eval()(x), first)


def test_candidates_of_one_source_do_not_touch_each_other() -> None:
    """Trap of the older tool: float after 2 bits stayed 2 bits."""
    network = network_of(ZOO["mlp"])
    x = inputs_of(ZOO["mlp"], batch=64)[0]
    float_before = network.apply("cleanup")(x)
    eight = network.apply("quantize{weights=i8} | calibrate", data=x)
    two = network.apply("quantize{weights=i2, activations=u2} | calibrate", data=x)
    again = network.apply("quantize{weights=i8} | calibrate", data=x)
    assert torch.equal(network.apply("cleanup")(x), float_before)
    assert again.key == eight.key != two.key
    assert torch.equal(again(x), eight(x)) and not torch.equal(two(x), eight(x))


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=30), integer_formats, st.data())
def test_simulated_rounding_is_the_runtimes(values: list[float], format: Format, data: st.DataObject) -> None:
    zero = data.draw(st.integers(format.low, format.high))
    step = data.draw(st.floats(2.0**-10, 2.0**3, width=32))
    x = torch.tensor(values)
    found = fake_quantized(x, torch.tensor(step), zero, format.low, format.high)
    assert torch.equal(found, rounded(x, Type(format, (N,), Step.of(step, zero))))


def test_gradients_go_straight_through_inside_the_range() -> None:
    x = torch.tensor([-5.0, -1.0, -0.3, 0.0, 0.3, 1.2, 5.0], requires_grad=True)
    step = torch.tensor(0.5, requires_grad=True)
    y = fake_quantized(x, step, 0, -4, 3)
    y.sum().backward()
    assert x.grad is not None and step.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    per_value = [-4.0, 0.0, -1.0 + 0.6, 0.0, 1.0 - 0.6, 2.0 - 2.4, 3.0]  # bound outside, rounding error inside
    assert step.grad.item() == pytest.approx(sum(per_value) / math.sqrt(7 * 3), abs=1e-6)


def test_the_gradient_of_a_step_does_not_grow_with_the_batch() -> None:
    torch.manual_seed(0)
    x, gradients = torch.randn(1, 100), []
    for samples in (1, 8):
        step = torch.tensor(0.5, requires_grad=True)
        fake_quantized(x.expand(samples, 100), step, 0, -4, 3, samples=samples).sum().backward()
        assert step.grad is not None
        gradients.append(step.grad.item() / samples)
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-5)


def test_many_candidates_can_be_rounded_at_once() -> None:
    x, steps = torch.randn(3, 50), torch.tensor([0.1, 0.2, 0.4])

    def squares(x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        return (fake_quantized(x, step, 0, -8, 7) - 1).square().sum()

    together = torch.func.vmap(torch.func.grad(squares, argnums=1))(x, steps)
    alone = torch.stack([torch.func.grad(squares, argnums=1)(x[i], steps[i]) for i in range(3)])
    assert torch.allclose(together, alone, rtol=1e-5)


def test_gradients_of_extreme_values_are_finite() -> None:
    x = torch.tensor([3e38, -3e38, 0.0], requires_grad=True)
    step = torch.tensor(1e-12, requires_grad=True)
    fake_quantized(x, step, 3, 0, 255).sum().backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())


def test_any_name_of_a_users_module_is_taken() -> None:
    """Names that the module has for itself, and a tensor that bears the name of a folder of others."""
    lines = """
        %network.0.weight: f32[6, 6] = weight
        %network.0: f32[N, 6] = linear %x, %network.0.weight
        %training: f32[6] = weight
        %a: f32[N, 6] = add %network.0, %training
        %forward.type: f32[6] = buffer
        %b: f32[N, 6] = add %a, %forward.type
        %_network: f32[6] = weight
        %c: f32[N, 6] = add %b, %_network
        %_network.deep: f32[6] = weight
        %d: f32[N, 6] = add %c, %_network.deep
        %source.q: u8<0.1, 100>[N, 6] = quantize %d
        %source: f32[6, 6] = weight
        %e: f32[N, 6] = linear %source.q, %source
    """
    graph = graph_of(lines, "%x: f32[N, 6]")
    network, x = network_of(graph), inputs_of(graph)
    module = network.module().eval()
    with torch.no_grad():
        assert torch.equal(module(*x), network(*x))
    assert len(list(module.parameters())) == 6  # five weights and a step
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
        assert torch.equal(network.with_trained(module)(*x), module(*x))


def test_a_copy_of_a_module_trains_apart() -> None:
    network = network_of(ZOO["mlp"])
    module = network.module()
    twin = copy.deepcopy(module)
    assert isinstance(twin, GraphModule) and twin.source() is network
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    x = inputs_of(ZOO["mlp"])[0]
    assert torch.equal(network.with_trained(module)(x), network(x))
    assert not torch.equal(network.with_trained(twin)(x), network(x))


def test_state_can_be_kept_and_put_back() -> None:
    network = quantized()
    module, other = network.module(), network.module()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.01)
    other.load_state_dict(module.state_dict())
    assert network.with_trained(other).key == network.with_trained(module).key


def test_modules_of_other_networks_are_refused() -> None:
    with pytest.raises(NascError, match=r"with_trained takes the module that this network's module\(\) gave"):
        network_of(ZOO["mlp"]).with_trained(quantized().module())
    with pytest.raises(NascError, match="with_trained takes the module"):
        network_of(ZOO["mlp"]).with_trained(torch.nn.Linear(2, 2))


def test_legalized_networks_do_not_train() -> None:
    with pytest.raises(NascError, match="a legalized network does not train"):
        quantized(pipeline="quantize{weights=i8, activations=u8} | calibrate | legalize").module()


def test_batch_norms_train_on_the_batch() -> None:
    graph = graph_of("%m: f32[3] = buffer\n%v: f32[3] = buffer\n%y: f32[N, 3] = batch_norm %x, %m, %v", "%x: f32[N, 3]")
    network = Network(graph, Store({"m": Source(torch.zeros(3)), "v": Source(torch.ones(3))}))
    x = torch.randn(64, 3) * 2 + 5
    module = network.module().train()
    y = module(x)
    assert torch.allclose(y.mean(0), torch.zeros(3), atol=1e-5)
    trained = network.with_trained(module)
    assert torch.allclose(trained.values["m"], 0.1 * x.mean(0), atol=1e-5)
    assert torch.allclose(trained.values["v"], 0.9 + 0.1 * x.var(0), atol=1e-5)
    assert torch.equal(network.values["m"], torch.zeros(3))


def test_a_trained_step_that_is_a_power_of_two_by_chance_reads_back() -> None:
    network = quantized()
    module = network.module()
    with torch.no_grad():
        module.get_buffer("x.q_step").fill_(0.125)
        module.get_parameter("x.q_octaves").fill_(1.0)
    graph = network.with_trained(module).graph
    assert graph.types["x.q"].step == Step.of(0.25, graph.types["x.q"].step.zero or 0)  # type: ignore[union-attr]
    assert parse(text(graph)) == graph


def test_steps_stay_positive() -> None:
    network = quantized()
    module = network.module()
    with torch.no_grad():
        module.get_parameter("x.q_octaves").fill_(-500.0)
        module.get_parameter("fc1.weight_octaves").fill_(-500.0)
    trained = network.with_trained(module)
    assert float(trained.weights.steps("fc1.weight").min()) > 0
    assert parse(text(trained.graph)) == trained.graph
