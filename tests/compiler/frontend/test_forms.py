"""The forms a model may be given in, what may be said beside them, and the message for each way to get it wrong."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nasc
import pytest
import torch
from nasc.compiler.frontend.example_text import InputText, example_of_text, parse_inputs
from nasc.compiler.frontend.given import Given, parse_arguments
from nasc.ir.errors import NascError, UsageError
from safetensors.torch import save_file
from torch import Tensor, nn

torch.set_num_threads(1)

NETS = """
import torch
from torch import nn

class Tagger(nn.Module):
    def __init__(self, words=50, width=6, classes=3):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.head = nn.Linear(width, classes)
    def forward(self, tokens, mask):
        return self.head((self.words(tokens) * mask[..., None]).sum(1))

finished = Tagger()
number = 3
"""


class Tagger(nn.Module):
    """Two inputs, one of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(12, 6)
        self.drop = nn.Dropout()
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.drop(self.words(tokens) * mask[..., None]).sum(1))


def tagged(batch: int = 3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(batch)
    return torch.randint(12, (batch, 5), generator=random), torch.rand(batch, 5, generator=random)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def exported(model: nn.Module, *, dynamic: bool = True, **options: Any) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    shapes = ({0: batch}, {0: batch}) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(model, tagged(), dynamic_shapes=shapes, **options)


def saved(model: nn.Module, path: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(exported(model, **options), path)
    return path


# Inputs as text.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1x3x64x64", [InputText((1, 3, 64, 64))]),
        ("2x24:i64", [InputText((2, 24), "i64")]),
        ("2x24:i64:5..999", [InputText((2, 24), "i64", 5, 999)]),
        ("2x4, 2x3:bool", [InputText((2, 4)), InputText((2, 3), "bool")]),
        ("tokens=2x4:i32,mask=2x4", [InputText((2, 4), "i32", name="tokens"), InputText((2, 4), name="mask")]),
        (["2x4", "3x4:f16"], [InputText((2, 4)), InputText((3, 4), "f16")]),
        ("onnx::x.1=2x4:i64:0..3", [InputText((2, 4), "i64", 0, 3, "onnx::x.1")]),
    ],
)
def test_inputs_as_text(text: str | Sequence[str], expected: list[InputText]) -> None:
    assert list(parse_inputs(text)) == expected


def test_inputs_are_drawn_as_they_are_described() -> None:
    whole = example_of_text("2x2000:i64:5..7")
    assert isinstance(whole, Tensor)
    assert whole.dtype == torch.int64
    assert set(whole.flatten().tolist()) == {5, 6, 7}
    named = example_of_text("a=1x4:f64,b=2x3:bool")
    assert isinstance(named, dict)
    assert {k: (v.dtype, tuple(v.shape)) for k, v in named.items()} == {
        "a": (torch.float64, (1, 4)),
        "b": (torch.bool, (2, 3)),
    }
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert example_of_text("4x4").equal(example_of_text("4x4"))  # type: ignore[union-attr, arg-type]
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3y4", "is no shape"),
        ("1x3:f31", "there is no type 'f31'"),
        ("1x3:i64:9..2", "the range 9..2 is empty"),
        ("1x3:f32:0..2", "only whole numbers have a range"),
        ("a=1x3,2x3", "either all inputs have names or none"),
        ("a=1x3,a=2x3", "a name is given twice"),
        ("1x3:i64:", "is no shape"),
    ],
)
def test_inputs_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        example_of_text(text)


def test_arguments_as_text() -> None:
    said = ["num_classes=10", "name=tiny", "norm=none", "bias=True", "sizes=(3, 4)", "path=a=b"]
    found = parse_arguments(said)
    assert found == {"num_classes": 10, "name": "tiny", "norm": None, "bias": True, "sizes": (3, 4), "path": "a=b"}
    given = Given.of("1x3", "w.pt", found)
    assert Given.of_words(given.words) == given
    for wrong in (["num_classes"], ["=3"], ["a=1", "a=2"]):
        with pytest.raises(UsageError, match="argument"):
            parse_arguments(wrong)
    with pytest.raises(UsageError, match="--inptu is not said of a model"):
        Given.of_words(["--inptu", "1x3"])


# Attributes of packages, and their arguments.


def test_an_attribute_with_arguments_and_whole_numbers(here: Path) -> None:
    net = nasc.load_network("nets:Tagger", input="2x7:i64,2x7", arguments=["words=30", "classes=4"])
    assert str(net.graph.inputs[0].type) == "i64[N, 7]"
    assert net.graph.types["words.weight"].axes[0].value == 30  # type: ignore[union-attr]
    by_name = nasc.load_network("nets:Tagger", input="mask=2x7,tokens=2x7:i64")
    assert [i.name for i in by_name.graph.inputs] == ["mask", "tokens"]


def test_a_finished_module_is_taken_as_it_is(here: Path) -> None:
    assert nasc.load_task("nets:finished", input="2x7:i64,2x7").name == "finished"


def test_a_model_file_takes_the_same(here: Path) -> None:
    (here / "model.py").write_text(
        NETS + "model = Tagger\nexample_inputs = (torch.zeros(2, 3).long(), torch.ones(2, 3))"
    )
    state = nasc.load_task("nets:Tagger", input="1x7:i64,1x7", arguments={"width": 9}).model.state_dict()
    state = {name: held + 1 for name, held in state.items()}
    save_file(state, here / "w.safetensors")
    task = nasc.load_task("model.py", input="4x7:i64,4x7", weights="w.safetensors", arguments={"width": 9})
    assert task.example_inputs.args[0].shape == (4, 7)
    assert all(task.model.state_dict()[name].equal(held) for name, held in state.items())
    assert task.words == ("--input", "4x7:i64,4x7", "--weights", "w.safetensors", "--arg", "width=9")


def refusal(source: str, **options: Any) -> NascError:
    with pytest.raises(NascError) as raised:
        nasc.load_network(source, **options)
    return raised.value


REFUSED: dict[str, tuple[str, dict[str, Any], int, list[str]]] = {
    "an argument that is not taken": (
        "nets:Tagger",
        {"input": "1x7:i64,1x7", "arguments": ["widht=3"]},
        1,
        ["unexpected keyword argument 'widht'", "while running model(widht=3)"],
    ),
    "arguments of what is finished": (
        "nets:finished",
        {"input": "1x7:i64,1x7", "arguments": ["width=3"]},
        2,
        ["one finished network", "width", "Give a function"],
    ),
    "an attribute that is no model": ("nets:number", {"input": "1x7"}, 2, ["`model` is 3, expected an nn.Module"]),
    "floats for words": ("nets:Tagger", {"input": "1x7,1x7"}, 1, ["nets.py:11", "scalar types: Long, Int"]),
    "a word that is not in the table": (
        "nets:Tagger",
        {"input": "1x7:i64:0..99,1x7"},
        1,
        ["nets.py:11", "index out of range"],
    ),
    "too few inputs": ("nets:Tagger", {"input": "1x7:i64"}, 1, ["missing 1 required positional argument: 'mask'"]),
    "no weights there": (
        "nets:Tagger",
        {"input": "1x7:i64,1x7", "weights": "gone.pt"},
        2,
        ["--weights gone.pt: there is no file"],
    ),
    "no such form": ("nets", {}, 2, ["'nets' names no model", "timm:NAME", "model.pt2", "torchvision.models:resnet18"]),
    "no such program": ("gone.pt2", {}, 2, ["gone.pt2: no such file", "torch.export.save"]),
    "no such network": ("gone.nasc", {}, 2, ["gone.nasc", "no such file"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_user_gets_wrong(here: Path, case: str) -> None:
    source, options, code, wanted = REFUSED[case]
    error = refusal(source, **options)
    assert error.exit_code == code, str(error)
    assert [text for text in wanted if text not in str(error)] == [], str(error)


def test_weights_of_another_network(here: Path) -> None:
    torch.save({"head.weight": torch.ones(2)}, here / "w.pt")
    error = refusal("nets:Tagger", input="1x7:i64,1x7", weights="w.pt")
    assert "w.pt does not fit the model (Tagger)" in str(error)


# timm.


def test_a_model_of_timm_has_its_own_input_size() -> None:
    pytest.importorskip("timm")
    task = nasc.load_task("timm:test_convnext", arguments=["in_chans=1", "num_classes=7"])
    assert tuple(task.example_inputs.args[0].shape) == (1, 1, 160, 160)
    assert (task.name, task.source) == ("test_convnext", "timm:test_convnext")
    smaller = nasc.load_task("timm:test_vit", input="2x3x160x160")
    assert tuple(smaller.example_inputs.args[0].shape) == (2, 3, 160, 160)
    assert smaller.weights_digest() == nasc.load_task("timm:test_vit").weights_digest()


def test_a_misspelt_model_of_timm() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UsageError, match=r"timm has no model 'resnet81'\n  Did you mean .*resnet18"):
        nasc.load_task("timm:resnet81")


def test_timm_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match="timm is not installed here\n  pip install timm"):
        nasc.load_task("timm:resnet18")


# Exported programs.


def test_an_exported_program_lowers_as_its_module_does() -> None:
    model = Tagger().eval()
    net, direct = nasc.lower(exported(model), name="tagger"), nasc.lower(model, tagged())
    assert net.graph == direct.graph
    assert net.key == direct.key
    assert torch.allclose(net(*tagged(7)), model(*tagged(7)), atol=1e-6)


def test_a_saved_program_by_its_path(here: Path) -> None:
    model = Tagger().eval()
    path = saved(model, here / "tagger.pt2")
    net = nasc.load_network(path)
    assert net.graph.name == "tagger"
    assert torch.allclose(net(*tagged(4)), model(*tagged(4)), atol=1e-6)
    locations = {op.location.file for op in net.graph.ops if op.location}
    assert {Path(file).name for file in locations} == {"test_forms.py"}
    other = {name: held + 1 for name, held in model.state_dict().items()}
    torch.save(other, here / "w.pt")
    changed = nasc.load_network(path, weights="w.pt")
    assert changed.weights.recipe("head.bias").tensor.equal(other["head.bias"])
    assert nasc.load_task(path).weights_digest() != nasc.load_task(path, weights="w.pt").weights_digest()


def test_a_program_with_a_fixed_batch_stays_so() -> None:
    net = nasc.lower(exported(Tagger().eval(), dynamic=False))
    assert str(net.graph.inputs[0].type) == "i64[3, 5]"


def test_programs_that_are_refused(here: Path) -> None:
    training = saved(Tagger().train(), here / "training.pt2")
    error = refusal(str(training))
    assert "exported in training mode: dropout" in str(error)
    assert "torch.export.export(model.eval(), inputs)" in str(error)
    path = saved(Tagger().eval(), here / "tagger.pt2")
    assert "does not take these inputs" in str(refusal(str(path), input="3x6:i64,3x6"))
    assert "--arg width says nothing of an exported program" in str(refusal(str(path), arguments=["width=3"]))
    path.write_bytes(path.read_bytes()[:400])
    assert "tagger.pt2: torch.export.load cannot read it" in str(refusal(str(path)))


def test_a_program_with_two_dynamic_axes_is_refused() -> None:
    length, batch = torch.export.Dim("length"), torch.export.Dim("batch")
    shapes = ({0: batch, 1: length}, {0: batch, 1: length})
    program = torch.export.export(Tagger().eval(), tagged(), dynamic_shapes=shapes)
    with pytest.raises(NascError, match="depends on the input in another way than through the batch"):
        nasc.lower(program)


# Modules in Python.


def test_a_module_takes_a_tensor_a_tuple_or_a_dict() -> None:
    tokens, mask = tagged()
    model = Tagger()
    positional, named = nasc.lower(model, (tokens, mask)), nasc.lower(model, {"tokens": tokens, "mask": mask})
    assert positional.graph == named.graph
    assert model.training
    assert nasc.lower(nn.Linear(3, 2), torch.zeros(4, 3)).graph.name == "linear"


def test_what_is_no_module(here: Path) -> None:
    for model, message in (
        (Tagger, "found the class Tagger\n  Make one: Tagger()"),
        (3, "found a int"),
        ({"a": 1}, "found a dict"),
    ):
        with pytest.raises(UsageError) as raised:
            nasc.lower(model, tagged())  # type: ignore[arg-type]
        assert message in str(raised.value)
    with pytest.raises(UsageError, match="expected an nn.Module or a function"):
        nasc.compile({"a": 1}, tagged())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="Tagger needs example inputs"):
        nasc.lower(Tagger())
    with pytest.raises(UsageError, match="a file has its own inputs"):
        nasc.lower("nets.py", torch.zeros(1))


# Lowered networks.


def test_a_lowered_network_is_a_task_with_inputs_it_can_take(here: Path) -> None:
    nasc.lower(Tagger(), tagged()).save(here / "tagger.nasc")
    task = nasc.load_task("tagger.nasc")
    assert int(task.example_inputs.args[0].max()) <= 9
    assert nasc.load_network("tagger.nasc", input="2x5:i64:0..11,2x5").graph.name == "tagger"
    named = nasc.load_task("tagger.nasc", input="mask=2x5,tokens=2x5:i64")
    assert named.example_inputs.args[0].dtype == torch.int64
    for text, message in (
        ("2x5", "it has 2 inputs, 1 are given"),
        ("tokens=2x5:i64,msk=2x5", "its inputs are tokens, mask, not tokens, msk"),
        ("2x6:i64,2x5", "does not take these inputs"),
    ):
        assert message in str(refusal("tagger.nasc", input=text)), text
    assert "--weights says nothing of a lowered network" in str(refusal("tagger.nasc", weights="w.pt"))


def test_a_quantized_network_is_no_source_of_a_search(here: Path) -> None:
    net = nasc.lower(nn.Linear(3, 2), torch.randn(4, 3)).apply("quantize{weights=i8}")
    net.save(here / "q.nasc")
    with pytest.raises(UsageError, match="quantized already"):
        nasc.load_task("q.nasc")
    assert nasc.load_network("q.nasc").key == net.key
