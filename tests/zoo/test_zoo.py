"""A sample of the zoo that fits the time of CI, spanning families; `make zoo` runs all of it."""

from __future__ import annotations

import pytest
from zoo.models import zoo, zoo_model
from zoo.survey import survey

SAMPLE = {
    "torchvision/shufflenet_v2_x0_5": "channels are permuted between groups",
    "torchvision/mobilenet_v3_small": "depthwise convolutions, squeeze and excitation",
    "timm/mobilevit_xxs": "convolutions and attention, unfolded patches",
    "transformers/BertForMaskedLM": "attention, tied embeddings",
    "transformers/LlamaForCausalLM": "grouped-query attention, rotary positions",
    "transformers/SwinForImageClassification": "windows that are rolled and partitioned, relative positions",
    "transformers/Wav2Vec2ForSequenceClassification": "convolutions over sound, weight norm, group norm",
}
"""What stands in CI, and what for."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_a_network_lowers_exports_and_its_widths_are_proved(name: str) -> None:
    row = survey(zoo_model(name))
    assert row.lowers, row
    assert row.proved, row.proofs
    assert row.share >= 0.9, row
    assert not row.raw, row.raw
    assert row.emission is not None and row.emission["agrees"], row.emission


def test_the_zoo_spans_families() -> None:
    """At least 75 classification networks of torchvision, and at least 60 others."""
    names = [model.name for model in zoo()]
    assert len(set(names)) == len(names)
    assert sum(n.startswith("torchvision/") for n in names) >= 75
    assert sum(not n.startswith("torchvision/") for n in names) >= 60
