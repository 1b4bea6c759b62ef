"""Targets: what a network becomes, where it runs, and what that costs."""

from .agree import Agreement, OutputAgreement, agree
from .artifact import Artifact
from .base import Bound, Session, Signature, Support, Target, TargetError
from .cost import Cost, LayerCost, StaticCost, static_cost
from .plan import LayerPlan, Need, Node, Placement, Plan, check_placement
from .polynomial import Totals, compiled_totals
from .registry import target_named, targets

__all__ = [
    "Agreement", "Artifact", "Bound", "Cost", "LayerCost", "LayerPlan", "Need", "Node", "OutputAgreement", "Placement",
    "Plan", "Session", "Signature", "StaticCost", "Support", "Target", "TargetError", "Totals", "agree",
    "check_placement", "compiled_totals", "static_cost", "target_named", "targets",
]  # fmt: skip
