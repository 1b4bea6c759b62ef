"""Pipelines as text: canonical, complete, replayed exactly, and refused with the place and the mend."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nasc.compiler.network import Network
from nasc.compiler.passes import (
    PASSES,
    Calibrate,
    Cleanup,
    Context,
    Convert,
    FoldBatchNorm,
    Legalize,
    MergeLinear,
    Pass,
    Quantize,
    Resize,
)
from nasc.compiler.passes.base import register
from nasc.compiler.pipeline import Pipeline, parse_pipeline
from nasc.ir import InvalidGraph, NascError, UsageError, parse_encoding, rebuilt
from support.networks import inputs_of, network_of
from support.zoo import ZOO

names = st.from_regex(r"[a-z][a-z0-9_]{0,6}(\.[a-z0-9]{1,4}){0,2}", fullmatch=True)
patterns = st.one_of(names, st.sampled_from(["*", "fc?", "body.*", "[ab]", "fc[12]", "[!x]*", "conv2d", "a[,]b"]))
widths = names.filter(lambda n: n not in ("importance", "grow", "noise", "multiple"))
weights = st.none() | st.sampled_from(["i2", "i4", "i16", "i8<2^?>", "i6<2^-4>", "i8<0.03>"]).map(parse_encoding)
inputs = st.none() | st.sampled_from(["u2", "u8", "i12", "u8<2^?>", "u8<2^-4, 3>", "i8<?, ?>"]).map(parse_encoding)

passes: st.SearchStrategy[Pass] = st.one_of(
    st.just(Cleanup()),
    st.just(FoldBatchNorm()),
    st.just(MergeLinear()),
    st.builds(
        Resize,
        st.lists(st.tuples(widths, st.integers(1, 4096)), max_size=3, unique_by=lambda t: t[0]).map(tuple),
        st.sampled_from(["l1", "l2", "batch-norm", "taylor", "random"]),
        st.sampled_from(["net2net", "nearly", "initialise"]),
        st.floats(0, 10),
    ),
    st.builds(Quantize, st.lists(patterns, min_size=1, max_size=3).map(tuple), weights, inputs, weights),
    st.builds(
        Calibrate,
        st.sampled_from(["minmax", "average", "percentile", "mse", "entropy"]),
        st.integers(1, 10**6),
        st.floats(50.1, 100),
    ),
    st.builds(Convert, st.sampled_from(["f16", "bf16", "f32", "mxfp4", "f4e2m1"]).map(parse_encoding)),
    st.builds(Legalize, st.sampled_from(["onnxruntime:cpu", "onnxruntime:cuda"])),
)
pipelines = st.lists(passes, max_size=5).map(lambda found: Pipeline(tuple(found)))


@given(pipelines)
def test_parsing_the_text_gives_the_pipeline(pipeline: Pipeline) -> None:
    assert parse_pipeline(str(pipeline)) == pipeline
    assert parse_pipeline(pipeline.complete()) == pipeline


@given(pipelines)
def test_texts_are_canonical(pipeline: Pipeline) -> None:
    assert str(parse_pipeline(str(pipeline))) == str(pipeline)
    assert parse_pipeline(pipeline.complete()).complete() == pipeline.complete()
    assert str(parse_pipeline(pipeline.complete())) == str(pipeline)


CANONICAL = [
    ("", ""),
    ("cleanup", "cleanup"),
    ("  ", ""),
    (" cleanup{} |fold-batch-norm ", "cleanup | fold-batch-norm"),
    ("quantize{weights=i4,layers=*}", "quantize{weights=i4}"),
    ("quantize{ layers = [ fc1 , fc2 ] }", "quantize{layers=[fc1, fc2]}"),
    ("quantize{layers=[fc1]}", "quantize{layers=fc1}"),
    ("quantize{layers=[[ab]]}", "quantize{layers=[[ab]]}"),
    ("quantize{biases=i8, activations=u8<2^-4>, weights=i4}", "quantize{weights=i4, activations=u8<2^-4>, biases=i8}"),
    ("calibrate{samples=512, method=mse}", "calibrate"),
    ("calibrate{samples=64, method=minmax}", "calibrate{method=minmax, samples=64}"),
    ("resize{noise=0.0, b=3, a=2, importance=l1}", "resize{b=3, a=2, importance=l1}"),
    ("legalize{target=onnxruntime:cpu}", "legalize"),
]


@pytest.mark.parametrize(("text", "canonical"), CANONICAL)
def test_the_canonical_text(text: str, canonical: str) -> None:
    assert str(parse_pipeline(text)) == canonical


def test_the_complete_text_has_every_default() -> None:
    text = "resize{a=2} | quantize{weights=i4} | calibrate | legalize | cleanup"
    assert parse_pipeline(text).complete() == (
        "resize{a=2, importance=l2, grow=net2net, noise=0.0, multiple=1} | "
        "quantize{layers=*, weights=i4, per=channel} | "
        "calibrate{method=mse, samples=512, percentile=99.99, momentum=0.9} | "
        "legalize{target=onnxruntime:cpu} | cleanup"
    )


ERRORS = [
    ("clean", "pipeline: there is no pass 'clean'", "Did you mean cleanup?"),
    ("resize a=1", "pipeline: there is no pass 'resize a=1'", "Did you mean resize"),
    ("cleanup}", "pipeline: there is no pass 'cleanup}'", "Did you mean cleanup?"),
    ("resize{a=1", "pipeline: expected '}' before the end of 'resize{a=1'", None),
    ("quantize{layers=[a}", "pipeline: expected ']' before the end of 'quantize{layers=[a}'", None),
    ("resize{a=1}x", "pipeline: 'resize{a=1}x' lacks its closing brace", "Write NAME{OPTION=VALUE, …}."),
    ("resize{a}", "pipeline: resize: expected OPTION=VALUE, found 'a'", None),
    ("resize{a=}", "pipeline: resize: expected OPTION=VALUE, found 'a='", None),
    ("resize{=3}", "pipeline: resize: expected OPTION=VALUE, found '=3'", None),
    ("resize{a=1,}", "pipeline: resize: expected OPTION=VALUE, found ''", None),
    ("resize{a=1, a=2}", "pipeline: resize: the option 'a' is given twice", None),
    ("resize{a=big}", "resize: a must be an integer; found 'big'", None),
    ("resize{a=1.5}", "resize: a must be an integer; found '1.5'", None),
    ("resize{a=0}", "resize: a must be at least 1; found 0", None),
    ("resize{noise=much}", "resize: noise must be a number; found 'much'", None),
    ("resize{noise=nan}", "resize: noise must be a number; found 'nan'", None),
    ("resize{noise=-1}", "resize: noise must be at least 0; found -1", None),
    (
        "resize{grow=net}",
        "resize: grow must be one of net2net, nearly, initialise; found 'net'",
        "Did you mean net2net?",
    ),
    ("cleanup{all=true}", "cleanup has no option 'all'", "There is none here."),
    ("calibrate{methd=mse}", "calibrate has no option 'methd'", "Did you mean method?"),
    ("calibrate{samples=some}", "calibrate: samples must be an integer; found 'some'", None),
    ("convert", "convert needs the option 'to'", "Write convert{to=…}."),
    (
        "quantize{weights=i99}",
        "quantize: weights:1:1: error: unknown number format 'i99'",
        "Write quantize{weights=i8}, or another",
    ),
    ("quantize{weights=4}", "quantize: weights:1:1: error: expected a format such as f32, found '4'", "Write quantize"),
    (
        "convert{to=f32<block 32>}",
        "convert: to:1:5: error: f32 numbers stand for themselves and have no step",
        "Write convert{to=i8}, or another format of docs/formats.md.",
    ),
    ("convert{to=nonsense}", "convert: to:1:1: error: unknown number format 'nonsense'", "Write convert{to=i8}"),
    *(
        (
            f"convert{{to={wide}}}",
            f"convert: to must be f32, f16, bf16, or a format of 16 bits or fewer; found {wide}",
            "Write f16 or bf16 for all ops, or a format that layers read, such as i8",
        )
        for wide in ("f64", "i32", "i64", "bool", "i32<2^-1>")
    ),
    (
        "convert{to=i8<per 0>}",
        "convert: to must suit weights and inputs alike: weights cannot name an axis for its steps; found i8<per 0>",
        "Weights have one step per output channel",
    ),
    (
        "convert{to=i4<block 32, zeros>}",
        "convert: to must suit weights and inputs alike: activations in blocks are symmetric;"
        " found i4<block 32, zeros>",
        "Write i4<block 32>.",
    ),
    (
        "convert{to=u4<0.02, 16>}",
        "convert: to must suit weights and inputs alike: the zero of weights must be one of the codes 0 to 15;"
        " found u4<0.02, 16>",
        "Write f16 or bf16",
    ),
    ("quantize{layers=[]}", "quantize: layers must name at least one layer", "Write layers=* for all."),
]


@pytest.mark.parametrize(("text", "message", "mend"), ERRORS)
def test_what_is_no_pipeline_is_refused(text: str, message: str, mend: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse_pipeline(f"cleanup | {text}")
    assert caught.value.message.splitlines()[0] == message.replace(
        "before the end of '", "before the end of 'cleanup | "
    )
    assert caught.value.exit_code == 2
    if mend is not None:
        assert (caught.value.mend or "").startswith(mend)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("cleanup |", "ends with"),
        ("| cleanup", "begins with"),
        ("cleanup || calibrate", "has nothing between two"),
        ("|", "ends with"),
    ],
)
def test_a_bar_stands_between_two_passes(text: str, place: str) -> None:
    with pytest.raises(UsageError, match=rf"{place} '\|'\n  Write PASS \| PASS"):
        parse_pipeline(text)


def test_passes_that_need_real_numbers_stand_before_train() -> None:
    for mend in ("correct-bias{samples=8}", "round-weights"):
        said = (
            rf"{mend} stands behind train{{epochs=1}}, which trains(.|\n)*Put `{mend.partition('{')[0]}` before `train`"
        )
        with pytest.raises(UsageError, match=said):
            parse_pipeline(f"quantize{{weights=i4}} | calibrate | train{{epochs=1}} | {mend} | legalize")
        parse_pipeline(f"train | quantize{{weights=i4}} | calibrate | {mend}")
        parse_pipeline(f"quantize{{weights=i4}} | calibrate | {mend} | train")
        rounded = network_of(ZOO["mlp"]).apply("quantize{weights=i4} | calibrate")
        with pytest.raises(UsageError, match="leaves no real-numbered network"):
            rounded.apply(f"train | {mend}", train_data=())  # said before the data are looked at


def test_passes_run_in_order_and_are_observed() -> None:
    network = network_of(ZOO["mlp"])
    seen: list[tuple[int, str, int]] = []
    pipeline = parse_pipeline("resize{fc1=8} | fold-batch-norm | cleanup")
    result = pipeline.run(
        network, Context(), observe=lambda i, p, n, s: seen.append((i, str(p), n.widths["fc1"])) if s >= 0 else None
    )
    assert seen == [(0, "resize{fc1=8}", 8), (1, "fold-batch-norm", 8), (2, "cleanup", 8)]
    assert result.key == network.apply(pipeline).key == network.apply(str(pipeline)).key


def test_an_empty_pipeline_changes_nothing() -> None:
    network = network_of(ZOO["mlp"])
    assert network.apply("") is network


def test_pipelines_join_and_split_where_data_is_needed() -> None:
    one, two = parse_pipeline("resize{a=2} | quantize{weights=i4}"), parse_pipeline("calibrate | legalize")
    assert str(one + two) == "resize{a=2} | quantize{weights=i4} | calibrate | legalize"
    assert (one + two).split() == (one, two)
    assert one.split() == (one, Pipeline(()))
    assert hash(one + two) == hash(parse_pipeline(str(one + two)))


@pytest.fixture
def breaking() -> object:
    """A pass that leaves an invalid graph, known while the test runs."""

    @register("break")
    class Break(Pass):
        def __init__(self, quietly: bool) -> None:
            self.quietly = quietly

        def run(self, network: Network, context: Context) -> Network:
            from dataclasses import replace

            graph = network.graph
            ops = tuple(op for op in graph.ops if op.name != "relu1")
            if self.quietly:
                return Network(replace(graph, ops=ops), network.weights)
            narrow = network.graph.producers["fc1.weight"]
            wrong = narrow.with_type(replace(narrow.type, axes=(narrow.type.axes[0], narrow.type.axes[0])))
            renamed = replace(graph, widths=(("fc1", 15), ("fc2", 16)))
            return Network(rebuilt(renamed, [wrong if op is narrow else op for op in graph.ops]), network.weights)

        def __str__(self) -> str:
            return "break{quietly=true}" if self.quietly else "break"

    yield Break
    del PASSES["break"]


@pytest.mark.parametrize("quietly", [True, False])
def test_a_pass_that_leaves_an_invalid_graph_is_named(breaking: type, quietly: bool) -> None:
    network = network_of(ZOO["mlp"])
    pipeline = Pipeline((Cleanup(), breaking(quietly)))
    with pytest.raises(InvalidGraph) as caught:
        pipeline.run(network, Context())
    assert str(caught.value).endswith("after break{quietly=true}" if quietly else "after break")
    assert caught.value.faults


def test_every_pass_is_known_by_the_name_it_prints() -> None:
    for name, kind in PASSES.items():
        assert kind.name == name
        assert kind.__doc__


def test_what_is_given_is_what_is_replayed() -> None:
    """The text of a candidate, parsed again, gives the same network: also with passes that draw at random."""
    network, x = network_of(ZOO["concat"]), inputs_of(ZOO["concat"], batch=32)[0]
    resize, rest = "resize{a=2, b=9, importance=random, noise=0.05}", "quantize{weights=i4, activations=u8} | calibrate"
    text = f"{resize} | fold-batch-norm | {rest}{{samples=16}}"
    once = network.apply(text, data=x, seed=3)
    again = network.apply(str(parse_pipeline(text)), data=x, seed=3)
    assert once.key == again.key and torch.equal(once(x), again(x))
    assert network.apply(text, data=x, seed=4).key != once.key


def test_errors_of_passes_are_errors_of_nasc() -> None:
    with pytest.raises(NascError):
        network_of(ZOO["mlp"]).apply("resize{fc3=4}")
