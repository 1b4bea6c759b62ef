"""Quality of outputs: scikit-learn's figures, true standard errors, nothing left from before, and clear refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
import torch
from nasc.compiler.data import Rows
from nasc.compiler.frontend.model_values import make_task
from nasc.ir.errors import NascError, UsageError
from nasc.search.metrics import DIRECTIONS, predictions
from nasc.search.quality import (
    FIDELITY_CAP_DB,
    Quality,
    evaluate,
    evaluate_batches,
    fidelity,
    outputs_of,
    paired_difference,
    quality_of,
)
from sklearn import metrics as reference
from torch import Tensor, nn

torch.set_num_threads(1)

CLASS_METRICS = [name for name in DIRECTIONS if name != "mae"]


def scored(samples: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits that are right more often than not, and labels."""
    drawn = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (samples,), generator=drawn)
    logits = torch.randn(samples, classes, generator=drawn)
    logits[torch.arange(samples), y] += 1.2
    return logits, y


def given(x: Tensor) -> Tensor:
    return x


def test_multiclass_metrics_are_scikit_learn_s() -> None:
    logits, y = scored(997, 5)
    quality = evaluate(given, logits, y, CLASS_METRICS, batch_size=100)
    guessed, shares = logits.argmax(1), logits.double().softmax(1)
    expected = {
        "accuracy": reference.accuracy_score(y, guessed),
        "loss": reference.log_loss(y, shares),
        "precision": reference.precision_score(y, guessed, average="macro"),
        "recall": reference.recall_score(y, guessed, average="macro"),
        "f1": reference.f1_score(y, guessed, average="macro"),
        "auroc": reference.roc_auc_score(y, shares, multi_class="ovr"),
    }
    assert dict(quality.values) == pytest.approx(expected, abs=1e-6)
    assert (quality.kind, quality.samples) == ("labels", 997)
    assert quality.correct is not None
    assert quality.correct.mean().item() == pytest.approx(quality.values["accuracy"])


@pytest.mark.parametrize("form", ["two scores", "one logit", "a logit per row", "one probability", "two probabilities"])
def test_two_classes(form: str) -> None:
    logits, y = scored(500, 2)
    one = logits[:, 1] - logits[:, 0]
    outputs = {
        "two scores": logits,
        "one logit": one[:, None],
        "a logit per row": one,
        "one probability": one.sigmoid()[:, None],
        "two probabilities": logits.softmax(1),
    }[form]
    names = [name for name in CLASS_METRICS if name != "loss"]
    quality = evaluate(given, outputs, y, names, batch_size=64)
    guessed = (one > 0).long()
    assert dict(quality.values) == pytest.approx(
        {
            "accuracy": reference.accuracy_score(y, guessed),
            "precision": reference.precision_score(y, guessed),
            "recall": reference.recall_score(y, guessed),
            "f1": reference.f1_score(y, guessed),
            "auroc": reference.roc_auc_score(y, one),
        },
        abs=1e-6,
    )


def test_labels_of_every_pixel() -> None:
    drawn = torch.Generator().manual_seed(0)
    y = torch.randint(3, (6, 4, 4), generator=drawn)
    outputs = torch.randn(6, 3, 4, 4, generator=drawn)
    quality = evaluate(given, outputs, y, ["accuracy", "f1", "auroc"])
    flat = outputs.movedim(1, -1).reshape(-1, 3)
    assert quality.values["accuracy"] == pytest.approx(reference.accuracy_score(y.flatten(), flat.argmax(1)))
    assert quality.values["f1"] == pytest.approx(reference.f1_score(y.flatten(), flat.argmax(1), average="macro"))
    assert quality.values["auroc"] == pytest.approx(
        reference.roc_auc_score(y.flatten(), flat.double().softmax(1), multi_class="ovr")
    )
    assert quality.correct is not None
    assert quality.correct.shape == (6,)


def test_real_labels_have_loss_and_mae() -> None:
    x, y = torch.linspace(0, 1, 50)[:, None], torch.linspace(0, 1, 50) ** 2
    quality = evaluate(given, x, y)
    assert quality.values["mae"] == pytest.approx(reference.mean_absolute_error(y, x[:, 0]), abs=1e-6)
    assert quality.values["loss"] == pytest.approx(reference.mean_squared_error(y, x[:, 0]), abs=1e-6)
    assert quality.correct is None
    assert quality.directions == {"loss": "min", "mae": "min"}


def test_a_network_is_not_helped_by_the_one_before_it() -> None:
    """The older tool never reset its metrics: a 0 % network after a 100 % one scored 25 %."""
    y = torch.arange(40) % 4
    right, wrong = nn.functional.one_hot(y, 4).float(), nn.functional.one_hot((y + 1) % 4, 4).float()
    from torchmetrics.classification import MulticlassAccuracy

    own: dict[str, Any] = {
        "mine": lambda: MulticlassAccuracy(4),
        "finished": MulticlassAccuracy(4),
        "function": lambda outputs, labels: (outputs.argmax(1) == labels).float().mean(),
    }
    own["finished"].update(right, y)  # even one that somebody has used
    names = ["accuracy", "precision", "recall", "f1", *own]
    for _ in range(2):
        assert set(evaluate(given, right, y, names, 8, own=own).values.values()) == {1.0}
        assert set(evaluate(given, wrong, y, names, 8, own=own).values.values()) == {0.0}


def test_standard_errors_are_the_spread_seen_over_many_draws() -> None:
    names = ["accuracy", "loss", "f1", "auroc"]
    drawn = [evaluate(given, *scored(400, 3, seed), names) for seed in range(40)]
    for name in names:
        spread = torch.tensor([quality.values[name] for quality in drawn]).std().item()
        said = sum(quality.standard_errors[name] for quality in drawn) / len(drawn)
        assert 0.7 < said / spread < 1.4, name


def test_standard_error_of_accuracy_is_binomial() -> None:
    logits, y = scored(300, 4)
    quality = evaluate(given, logits, y, ["accuracy"])
    p = quality.values["accuracy"]
    assert quality.standard_errors["accuracy"] == pytest.approx(math.sqrt(p * (1 - p) / 300))


def test_a_paired_difference_tells_close_networks_apart() -> None:
    logits, y = scored(4000, 5)
    other = logits + 0.3 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    a, b = evaluate(given, logits, y), evaluate(given, other, y)
    assert a.correct is not None
    assert b.correct is not None
    apart = paired_difference(a.correct, b.correct)
    assert apart.mean == pytest.approx(a.values["accuracy"] - b.values["accuracy"], abs=1e-6)
    assert apart.samples == 4000
    independent = math.hypot(a.standard_errors["accuracy"], b.standard_errors["accuracy"])
    assert 0 < apart.standard_error < 0.6 * independent
    assert paired_difference(a.correct, a.correct).mean == 0
    with pytest.raises(UsageError, match=r"cannot pair \[4000\] samples with \[3\]"):
        paired_difference(a.correct, b.correct[:3])


def test_own_metrics_and_their_directions() -> None:
    import torchmetrics

    own: dict[str, Any] = {
        "error": (lambda outputs, labels: (outputs.argmax(1) != labels).float().mean(), "min"),
        "hinge": lambda: torchmetrics.HingeLoss(task="multiclass", num_classes=3),
        "top": (lambda: torchmetrics.Accuracy(task="multiclass", num_classes=3, top_k=2), "max"),
        "accuracy": lambda outputs, labels: 0.5,
    }
    logits, y = scored(90, 3)
    quality = evaluate(given, logits, y, [*own, "loss"], own=own)
    assert quality.directions == {"error": "min", "hinge": "min", "top": "max", "accuracy": "max", "loss": "min"}
    assert quality.values["error"] == pytest.approx((logits.argmax(1) != y).float().mean().item())
    assert quality.values["accuracy"] == 0.5
    assert set(quality.standard_errors) == {"loss"}


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (lambda outputs: 1.0, "metric 'mine' is neither a torchmetrics factory nor a function of outputs and labels"),
        (dict, "metric 'mine' is neither"),
        (lambda outputs, labels: outputs, r"metric 'mine' gives a tensor \[30, 3\], expected one number"),
        (lambda outputs, labels: 1 / 0, "(?s)test_quality.py:.*ZeroDivisionError.*while running metric 'mine'"),
    ],
)
def test_an_own_metric_that_is_none(own: Any, says: str) -> None:
    with pytest.raises(NascError, match=says):
        evaluate(given, *scored(30, 3), ["mine"], own={"mine": own})


def test_several_labels_per_sample_go_with_own_metrics_only() -> None:
    outputs, y = torch.randn(20, 4), torch.ones(20, 4, dtype=torch.int64)
    own = {"hits": lambda outputs, labels: ((outputs > 0) == (labels > 0)).float().mean()}
    quality = evaluate(given, outputs, y, ["hits", "loss"], own=own)
    assert quality.correct is None
    assert quality.values["hits"] == pytest.approx((outputs > 0).float().mean().item())
    with pytest.raises(UsageError, match=r"gives \[20, 4\] for class labels \[20, 4\]"):
        evaluate(given, outputs, y, ["accuracy"])


def test_what_is_refused() -> None:
    logits, y = scored(30, 3)
    with pytest.raises(UsageError, match=r"(?s)no metric 'acuracy'.*Did you mean accuracy"):
        evaluate(given, logits, y, ["acuracy"])
    with pytest.raises(UsageError, match="accuracy is no metric for real-valued labels"):
        evaluate(given, logits[:, 0], y.float(), ["accuracy"])
    with pytest.raises(UsageError, match="mae is no metric for class labels"):
        evaluate(given, logits, y, ["mae"])
    with pytest.raises(UsageError, match="labels go from 0 to 2, but the network tells 2 classes apart"):
        evaluate(given, logits[:, :2], y)
    with pytest.raises(UsageError, match="quality needs labels"):
        evaluate_batches(given, Rows(logits).batches(8))
    with pytest.raises(UsageError, match="there are no samples"):
        evaluate_batches(given, [])
    with pytest.raises(NascError, match="29 rows for 30 samples"):
        evaluate(lambda x: x[:-1], logits, y)
    with pytest.raises(NascError, match="auroc is not a number"):
        evaluate(given, logits, torch.zeros_like(y), ["auroc"])
    with pytest.raises(NascError, match="training mode"):
        evaluate(nn.Dropout(0.5), logits, y)


def test_outputs_that_are_not_numbers_are_no_predictions() -> None:
    logits, y = scored(30, 3)
    logits[4:6] = math.nan
    with pytest.raises(NascError, match="not finite for 2 of 30 samples"):
        evaluate(given, logits, y)


def test_a_runtime_s_numpy_arrays_lists_and_half_floats() -> None:
    logits, y = scored(50, 3)
    whole = evaluate(given, logits, y)
    assert evaluate(lambda x: [x.numpy()], logits, y, batch_size=7).values == pytest.approx(dict(whole.values))
    assert evaluate(lambda x: (x.half().numpy(),), logits, y).values["accuracy"] == pytest.approx(
        whole.values["accuracy"], abs=0.03
    )
    assert predictions(torch.tensor([0.2, 0.7])).tolist() == [0, 1]


def noisy(decibel: float) -> Any:
    drawn = torch.Generator().manual_seed(3)

    def run(x: Tensor) -> Tensor:
        return x + torch.randn(x.shape, generator=drawn) * 10 ** (-decibel / 20)

    return run


@pytest.mark.parametrize("decibel", [10, 40])
def test_fidelity_is_the_noise_that_was_added(decibel: float) -> None:
    x = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    quality = fidelity(noisy(decibel), outputs_of(given, [x]), [x[:1000], x[1000:]])
    assert quality.kind == "fidelity"
    assert quality.values["fidelity"] == pytest.approx(decibel, abs=4 * quality.standard_errors["fidelity"])
    assert 0 < quality.standard_errors["fidelity"] < 0.1
    assert quality.correct is not None
    assert quality.values["agreement"] == pytest.approx(quality.correct.mean().item())
    assert quality.values["agreement"] < 1


def test_the_same_outputs_have_the_cap_and_full_agreement() -> None:
    x, _ = scored(50, 3)
    quality = fidelity(given, outputs_of(given, [x]), [x])
    assert dict(quality.values) == {"fidelity": FIDELITY_CAP_DB, "agreement": 1.0}
    assert quality.directions == {"fidelity": "max", "agreement": "max"}


def test_fidelity_of_several_outputs_is_that_of_the_worst() -> None:
    x, _ = scored(2000, 3)
    run = noisy(20)
    quality = fidelity(lambda x: (x, run(x)), (x, x), [x])
    assert quality.values["agreement"] == 1
    assert 18 < quality.values["fidelity"] < 22


def test_fidelity_refuses_what_says_nothing() -> None:
    x, _ = scored(20, 3)
    with pytest.raises(NascError, match="outputs are all zero"):
        fidelity(given, (torch.zeros(20, 3),), [x])
    with pytest.raises(NascError, match=r"gives outputs \[\[20, 3\]\], the source network \[\[20, 2\]\]"):
        fidelity(given, (x[:, :2],), [x])
    one = fidelity(noisy(20), (x[:1, :1],), [x[:1, :1]])
    assert "agreement" not in one.values
    assert "fidelity" not in one.standard_errors


def test_a_task_with_labels_and_one_without() -> None:
    x, y = scored(60, 3)
    model = nn.Linear(3, 3)
    labelled = make_task(model, x[:1], validation_data=(x, y), metrics={"none": lambda outputs, labels: 0.0})
    quality: Quality = quality_of(labelled, model, metrics=["accuracy", "none"])
    assert quality.kind == "labels"
    assert set(quality.values) == {"accuracy", "none"}
    bare = make_task(model, x)
    assert quality_of(bare, model).values["fidelity"] == FIDELITY_CAP_DB
    assert quality_of(bare, lambda x: model(x).detach().numpy() + 0.1).values["fidelity"] < 60
    inputs_only = make_task(model, x[:1], validation_data=x)
    assert quality_of(inputs_only, model).samples == 60
    with pytest.raises(UsageError, match="has no labelled validation_data, so there is no accuracy"):
        quality_of(bare, model, metrics=["accuracy"])


def test_numpy_outputs_are_not_changed() -> None:
    logits, y = scored(20, 3)
    kept = logits.numpy().copy()
    evaluate(lambda x: kept, logits, y, batch_size=20)
    assert numpy.array_equal(kept, logits.numpy())
