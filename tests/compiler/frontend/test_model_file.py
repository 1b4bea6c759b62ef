"""What a model file may say, what comes of it, and the message for each way to get it wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nasc.compiler.frontend.example_text import example_of_text
from nasc.compiler.frontend.given import Given
from nasc.compiler.frontend.model_file import load_task
from nasc.compiler.frontend.model_values import NAMES, WHAT_TO_WRITE, make_task
from nasc.ir.errors import NascError, UsageError
from torch import nn

torch.set_num_threads(1)

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
    def forward(self, x):
        return self.fc(x)
"""
GOOD = NET + "model = Net\nexample_inputs = torch.zeros(2, 4)\n"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "net.py") -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return Path(name)

    return write


def refusal(source: str | Path, **options: object) -> NascError:
    with pytest.raises(NascError) as raised:
        load_task(source, **options)  # type: ignore[arg-type]
    return raised.value


def test_a_file_becomes_a_task(write: Write) -> None:
    task = load_task(write(GOOD + "train_data = (torch.ones(6, 4), torch.arange(6) % 3)\nclasses = ['a', 'b', 'c']"))
    assert task.name == "net"
    assert task.source == "net.py"
    assert isinstance(task.model, nn.Module)
    assert not task.model.training
    assert task.example_inputs.args[0].shape == (2, 4)
    assert task.example_inputs.kwargs == {}
    assert task.classes == ("a", "b", "c")
    assert not task.has_data
    assert task.data("test") is None
    assert len(task.required("train")) == 6


@pytest.mark.parametrize("model", ["Net", "Net()", "lambda: Net()"])
def test_initial_weights_come_from_the_seed(write: Write, model: str) -> None:
    path = write(NET + f"model = {model}\nexample_inputs = torch.zeros(2, 4)\n")
    torch.manual_seed(5)
    first = load_task(path)
    torch.manual_seed(6)
    again = load_task(path)
    assert first.weights_digest() == again.weights_digest()
    other = load_task(path, seed=1)
    assert other.weights_digest() != first.weights_digest()
    assert other.weights_digest() == first.with_seed(1).weights_digest()
    path.write_text(path.read_text() + "training = {'seed': 1}\n")
    assert load_task(path).weights_digest() == other.weights_digest()


def test_loading_leaves_the_random_numbers_alone(write: Write) -> None:
    path = write(GOOD)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_task(path).with_seed(4)
    assert torch.rand(1) == expected


def test_example_inputs_may_be_a_tuple_a_dict_or_a_function(write: Write) -> None:
    two = NET.replace("forward(self, x)", "forward(self, x, y)").replace("self.fc(x)", "self.fc(x) + self.fc(y)")
    positional = load_task(write(two + "model = Net\nexample_inputs = (torch.zeros(2, 4), torch.zeros(2, 4))\n"))
    assert len(positional.example_inputs.args) == 2
    by_name = load_task(write(two + "model = Net\nexample_inputs = {'y': torch.zeros(2, 4), 'x': torch.ones(2, 4)}\n"))
    assert by_name.example_inputs.args == ()
    assert list(by_name.example_inputs.kwargs) == ["y", "x"]
    drawn = load_task(write(NET + "model = Net\ndef example_inputs(): return torch.rand(2, 4)\n"))
    assert drawn.example_inputs.args[0].equal(load_task("net.py").example_inputs.args[0])


def test_data_functions_run_once_and_only_when_asked(write: Write) -> None:
    task = load_task(
        write(
            GOOD
            + """
import pathlib
def validation_data():
    with open("calls", "a") as calls: calls.write("x")
    return torch.rand(5, 4), torch.zeros(5, dtype=torch.uint8)
"""
        )
    )
    assert task.has_data
    assert not Path("calls").exists()
    rows = task.required("validation")
    assert task.required("validation") is rows
    assert [len(y) for _, y in task.batches("validation", 2) if y is not None] == [2, 2, 1]
    assert Path("calls").read_text() == "x"
    labels = next(task.batches("validation", 5))[1]
    assert labels is not None
    assert labels.dtype == torch.int64
    assert load_task("net.py").data_digest("validation") == task.data_digest("validation")


def test_digests_tell_data_apart(write: Write) -> None:
    text = GOOD + "train_data = (torch.ones(6, 4), torch.zeros(6))\n"
    whole = load_task(write(text)).data_digest("train")
    assert load_task(write(text.replace("torch.zeros(6)", "torch.ones(6)"))).data_digest("train") != whole
    assert load_task(write(text.replace("torch.ones(6, 4)", "torch.ones(6, 4) * 2"))).data_digest("train") != whole
    assert load_task(write(text + "# a remark\n")).data_digest("train") == whole


def test_calibration_takes_its_own_data_then_training_then_validation_then_examples(write: Write) -> None:
    def first(text: str) -> tuple[str, float, int]:
        task = load_task(write(GOOD + text))
        batches = list(task.calibration_batches(samples=3, size=2))
        held = torch.cat([batch for batch in batches if isinstance(batch, torch.Tensor)])
        return task.calibration_source, held[0, 0].item(), len(held)

    data = "{} = (torch.full((4, 4), {}), torch.zeros(4))\n"
    validation, train, test = (
        data.format("validation_data", 2.0),
        data.format("train_data", 3.0),
        data.format("test_data", 9),
    )
    assert first(test) == ("example_inputs", 0.0, 2)
    assert first(test + validation) == ("validation_data", 2.0, 3)
    assert first(test + validation + train) == ("train_data", 3.0, 3)
    only = "calibration_data = torch.full((4, 4), 5.0)\n"
    assert first(test + validation + train + only) == ("calibration_data", 5.0, 3)


def test_an_attribute_of_a_package_with_a_shape() -> None:
    task = load_task("torch.nn:Identity", given=Given.of("1x3x8x8"))
    assert task.name == "Identity"
    assert task.example_inputs.args[0].shape == (1, 3, 8, 8)


def test_torchvision_networks_by_name() -> None:
    pytest.importorskip("torchvision")
    task = load_task("torchvision.models:squeezenet1_1", given=Given.of("1x3x64x64"))
    again = load_task("torchvision.models:squeezenet1_1", given=Given.of("1x3x64x64"))
    assert task.weights_digest() == again.weights_digest()


def test_a_shape_serves_a_file_without_example_inputs(write: Write) -> None:
    task = load_task(write(NET + "model = Net\n"), given=Given.of("7x4"))
    assert task.example_inputs.args[0].shape == (7, 4)


def test_shapes_of_several_inputs() -> None:
    made = example_of_text("1x3, 2x5")
    assert isinstance(made, tuple)
    assert [list(held.shape) for held in made] == [[1, 3], [2, 5]]


@pytest.mark.parametrize("text", ["3y4", "", "1x-3", "0x4", "1x3x"])
def test_a_text_that_is_no_shape(text: str) -> None:
    with pytest.raises(UsageError, match="1x3x224x224"):
        example_of_text(text)


def test_modules_beside_the_file_are_found_and_do_not_stay(write: Write) -> None:
    write("SIZE = 4\n", "search.py")
    write("", "ir/__init__.py")
    write("def rows():\n    import torch\n    return torch.ones(3, 4), torch.zeros(3)\n", "ir/late.py")
    path = write(GOOD + "from search import SIZE\ndef train_data():\n    from ir.late import rows\n    return rows()\n")
    paths, names = list(sys.path), set(sys.modules)
    task = load_task(path)
    assert len(task.required("train")) == 3
    assert sys.path == paths
    left = {name for name in set(sys.modules) - names if not name.startswith("_nasc_model_file_")}
    assert left == set()
    import nasc.ir

    assert Path(str(nasc.ir.__file__)).parent.name == "ir"
    assert not hasattr(nasc.ir, "late")


def test_two_files_with_like_named_modules_each_see_their_own(write: Write) -> None:
    write("SIZE = 4\n", "one/sizes.py")
    write("SIZE = 5\n", "two/sizes.py")
    text = (
        NET.replace("4, 3", "SIZE, 3") + "from sizes import SIZE\nmodel = Net\nexample_inputs = torch.ones(1, SIZE)\n"
    )
    one, two = load_task(write(text, "one/net.py")), load_task(write(text, "two/net.py"))
    assert one.example_inputs.args[0].shape == (1, 4)
    assert two.example_inputs.args[0].shape == (1, 5)


def test_a_module_of_the_running_program_is_hidden_and_comes_back(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    import types

    mine = types.ModuleType("sizes")
    monkeypatch.setitem(sys.modules, "sizes", mine)
    write("SIZE = 4\n", "sizes.py")
    load_task(write(GOOD + "from sizes import SIZE\n"))
    assert sys.modules["sizes"] is mine


def test_a_rewritten_file_is_read_anew(write: Write) -> None:
    assert load_task(write(GOOD)).name == "net"
    assert load_task(write(GOOD.replace("4, 3", "4, 2"))).model(torch.zeros(1, 4)).shape == (1, 2)


def test_dataclasses_with_written_types_work_in_a_model_file(write: Write) -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    text += "@dataclass\nclass Size:\n    n: int = 4\n"
    assert load_task(write(text + GOOD + "assert Size().n == 4\n")).name == "net"


# What each mistake says.


def test_no_such_file(write: Write) -> None:
    write(GOOD, "network.py")
    error = refusal("netwrk.py")
    assert error.exit_code == 2
    assert str(error) == "netwrk.py: no such file\n  Did you mean network.py?"
    assert "no such file" in str(refusal("nowhere/at/all.py"))


def test_a_folder_or_another_kind_of_file(write: Write) -> None:
    write(GOOD, "folder/net.py")
    assert "folder: is a folder, expected a model file such as folder/model.py" in str(refusal("folder"))
    write("", "net.pt")
    assert "net.pt: a model file is Python and ends in .py" in str(refusal("net.pt"))


@pytest.mark.parametrize("text", ["resnet18", "torchvision models:x", ":x", "a:"])
def test_a_source_that_is_neither(text: str) -> None:
    error = refusal(text)
    assert f"{text!r} names no model" in str(error)
    assert "torchvision.models:resnet18" in str(error)


def test_a_package_that_is_not_there_or_lacks_the_attribute() -> None:
    error = refusal("no_such_package_at_all:x", given=Given.of("1x1"))
    assert "No module named 'no_such_package_at_all'" in str(error)
    assert "Install what provides 'no_such_package_at_all'" in str(error)
    error = refusal("torch.nn:Identiti", given=Given.of("1x1"))
    assert "torch.nn has no attribute 'Identiti'" in str(error)
    assert "Identity" in str(error)


def test_an_attribute_needs_a_shape() -> None:
    assert "--input 1x3x224x224" in str(refusal("torch.nn:Identity"))


def test_no_model(write: Write) -> None:
    error = refusal(write(NET + "network = Net()\n"))
    assert error.exit_code == 2
    assert "net.py: defines no `model` (it has Net, network)" in str(error)
    assert WHAT_TO_WRITE["model"] in str(error)


def test_no_example_inputs(write: Write) -> None:
    error = refusal(write(NET + "model = Net\n"))
    assert error.exit_code == 2
    assert "net.py: defines no `example_inputs`" in str(error)
    assert WHAT_TO_WRITE["example_inputs"] in str(error)


def test_an_exception_shows_the_users_line(write: Write) -> None:
    error = refusal(write("import math\n\n\nx = math.sqrt(-1)\n" + GOOD))
    assert error.exit_code == 1
    place, line, running = str(error).splitlines()[:3]
    assert place.startswith("net.py:4: error: ValueError: ")
    assert line.strip() == "x = math.sqrt(-1)"
    assert running.strip() == "while running net.py"
    assert "nasc" not in str(error).replace("Install", "")
    assert isinstance(error.__cause__, ValueError)


def test_an_exception_in_a_module_beside_it_shows_the_line_there(write: Write) -> None:
    write("def size():\n    raise RuntimeError('too small')\n", "sizes.py")
    error = refusal(write("import sizes\nsizes.size()\n" + GOOD))
    assert str(error).startswith("sizes.py:2: error: RuntimeError: too small\n    raise RuntimeError('too small')")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("model = lambda: 1 / 0\nexample_inputs = torch.zeros(1, 4)\n", "model()"),
        ("model = Net\nexample_inputs = lambda: 1 / 0\n", "example_inputs()"),
        ("model = Net\nexample_inputs = torch.zeros(1, 4)\ntrain_data = lambda: 1 / 0\n", "train_data"),
    ],
)
def test_an_exception_in_a_function_of_the_file(write: Write, text: str, place: str) -> None:
    path = write(NET + text)
    with pytest.raises(NascError, match="ZeroDivisionError") as raised:
        load_task(path).required("train")
    assert str(raised.value).startswith("net.py:")
    assert f"while running {place}" in str(raised.value)


def test_leaving_the_program_from_a_file_is_an_error_too(write: Write) -> None:
    assert "net.py:1: error: SystemExit: 3" in str(refusal(write("raise SystemExit(3)\n")))


def test_a_syntax_error(write: Write) -> None:
    error = refusal(write("x = 1\nmodel = (\n"))
    assert str(error).startswith("net.py:2: error: SyntaxError: ")
    assert "model = (" in str(error)


def test_a_missing_import_and_a_relative_one(write: Write) -> None:
    error = refusal(write("import no_such_package_at_all\n"))
    assert "net.py:1: error: ModuleNotFoundError" in str(error)
    assert "Install what provides 'no_such_package_at_all'" in str(error)
    assert "plain names" in str(refusal(write("from . import data\n")))


def test_a_model_that_does_not_run_on_the_example_inputs(write: Write) -> None:
    error = refusal(write(GOOD.replace("torch.zeros(2, 4)", "torch.zeros(2, 5)")))
    assert str(error).startswith("net.py:10: error: RuntimeError: ")
    assert "return self.fc(x)" in str(error)
    assert "while running the model of net.py on example_inputs float32[5]" in str(error)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("model", "3", "`model` is 3, expected an nn.Module or a function"),
        ("model", "lambda: 'x'", "`model` is 'x', expected the function to give an nn.Module"),
        ("example_inputs", "'x'", "example_inputs is a str, expected a tensor, a tuple of tensors, or a dict"),
        ("example_inputs", "(1, 2)", "example_inputs[0] is a int, expected a tensor"),
        ("example_inputs", "torch.tensor(1.0)", "a tensor without axes"),
        ("training", "3", "`training` is 3, expected a dict of settings"),
        ("training", "{'epoch': 3}", "training has no setting 'epoch'\n  Did you mean epochs"),
        ("training", "{'epochs': 0}", "training: epochs=0, expected a whole number from 1"),
        ("loss", "'cross'", "`loss` is 'cross', expected a function"),
        ("loss", "nn.MSELoss", "`loss` is the class MSELoss, expected a function"),
        ("metrics", "['accuracy']", "`metrics` is a list, expected a dict"),
        ("metrics", "{'error': (max, 'up')}", "found 'error': "),
        ("classes", "'ab'", "`classes` is 'ab', expected the names of the classes"),
        ("checkpoint", "3", "`checkpoint` is 3, expected a path"),
        ("checkpoint", "'gone.pt'", "checkpoint 'gone.pt': there is no file"),
    ],
)
def test_a_value_of_the_wrong_type(write: Write, name: str, value: str, says: str) -> None:
    error = refusal(write(GOOD + f"{name} = {value}\n"))
    assert error.exit_code == 2
    assert says in str(error)
    assert "net.py" in str(error)
    if name not in ("training", "checkpoint", "example_inputs"):
        assert WHAT_TO_WRITE[name] in str(error)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("3", "train_data is a int, expected a Dataset, a pair of tensors (x, y), or a function that gives one"),
        ("lambda: None", "train_data is a NoneType"),
        ("(torch.ones(3, 4), torch.ones(2))", "train_data has 3 rows of x but 2 labels y"),
        ("(torch.ones(3, 4), 'y')", "train_data's y is a str, expected a tensor"),
        (
            "(torch.ones(3, 5), torch.ones(3))",
            "train_data has inputs float32[5] per sample, example_inputs has float32[4]",
        ),
        ("(torch.ones(3, 4).double(), torch.ones(3))", "Convert them, for example with x.float()"),
        ("(torch.ones(0, 4), torch.ones(0))", "train_data has no samples"),
        ("(1, 2, 3)", "train_data is a tuple of 3"),
        ("torch.utils.data.DataLoader([1])", "Write train_data = the_loader.dataset"),
    ],
)
def test_data_of_the_wrong_type(write: Write, value: str, says: str) -> None:
    task = load_task(write(GOOD + "import torch.utils.data\n" + f"train_data = {value}\n"))
    with pytest.raises(UsageError) as raised:
        task.required("train")
    assert says in str(raised.value)


def test_data_that_are_not_named(write: Write) -> None:
    with pytest.raises(UsageError, match=r"net.py names no test_data\n  Write test_data = \(x, y\) in it"):
        load_task(write(GOOD)).required("test")


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("validation_set = (torch.ones(3, 4), torch.ones(3))", "validation_data"),
        ("val_data = (torch.ones(3, 4), torch.ones(3))", "validation_data"),
        ("train_dataset = (torch.ones(3, 4), torch.ones(3))", "train_data"),
        ("def training_data(): ...", "train_data"),
        ("test_set = (torch.ones(3, 4), torch.ones(3))", "test_data"),
        ("loss_fn = nn.CrossEntropyLoss()", "loss"),
        ("checkpoints = 'net.pt'", "checkpoint"),
        ("trainings = {}", "training"),
        ("metric = {}", "metrics"),
    ],
)
def test_a_near_miss_of_one_of_our_names(write: Write, line: str, meant: str) -> None:
    name = line.removeprefix("def ").split(" ")[0].split("(")[0]
    error = refusal(write(GOOD + line + "\n"))
    assert error.exit_code == 2
    assert f"defines `{name}`, which nasc does not read: did you mean `{meant}`?" in str(error)
    assert f"Write: {WHAT_TO_WRITE[meant]}" in str(error)


@pytest.mark.parametrize(
    "line",
    [
        "def train(): ...",
        "def train_step(x, y): ...",
        "from torchvision import models",
        "_validation_set = (1, 2)",
        "train_steps = 100",
        "test_path = 'x'",
        "train_data = (torch.ones(3, 4), torch.ones(3))\ntraining_data = train_data",
        "import torch.nn.functional as losses",
    ],
)
def test_a_person_s_own_names_are_left_alone(write: Write, line: str) -> None:
    assert load_task(write(GOOD + line + "\n")).name == "net"


def test_a_task_from_python_is_checked_alike() -> None:
    task = make_task(nn.Linear(4, 3), torch.zeros(1, 4), train_data=(torch.ones(2, 4), torch.zeros(2)), name="one")
    assert task.name == "one"
    assert len(task.required("train")) == 2
    with pytest.raises(UsageError, match="one finished network"):
        task.with_seed(1)
    with pytest.raises(UsageError, match="a task has no 'trian_data'"):
        make_task(nn.Linear(4, 3), torch.zeros(1, 4), trian_data=1)
    with pytest.raises(UsageError, match=r"expected an nn\.Module"):
        make_task(3, torch.zeros(1, 4))


def test_every_name_has_a_line_that_shows_how_to_write_it() -> None:
    assert all(WHAT_TO_WRITE[name].startswith(f"{name} = ") for name in NAMES)


def test_the_code_is_the_same_wherever_the_program_runs_from(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script beside the model has the folder on its path, the command has not."""
    write("WIDTH = 4", "sizes.py")
    write("import sizes", "parts/__init__.py")
    write("def data(): return 1", "parts/rows.py")
    write("raise RuntimeError('nobody imports this')", "other.py")
    path = write("def late():\n    from parts.rows import data\n" + GOOD)
    apart = load_task(path).code
    monkeypatch.syspath_prepend(str(path.parent.resolve()))
    assert load_task(path).code == apart
    for changed in ("sizes.py", "parts/__init__.py", "parts/rows.py"):
        text = Path(changed).read_text()
        write(f"{text}\nCHANGED = 1", changed)
        assert load_task(path).code != apart
        write(text, changed)
    write("CHANGED = 1", "other.py")
    assert load_task(path).code == apart
