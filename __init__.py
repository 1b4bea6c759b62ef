"""nasc: compile a PyTorch network into a faster, smaller, verified ONNX network for your own device.

    net = nasc.lower(model, example_inputs)
    small = net.apply("resize{stem=24} | quantize{weights=i4, activations=u8} | calibrate", data=batches)
    nasc.export(small, "small.onnx")
    nasc.measure("small.onnx", baseline="source.onnx")
    result = nasc.compile("model.py", search="tpe", trials=50)

Names are imported when they are first used, so `import nasc` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api import compile, measure, profile, sensitivity, space
    from .compiler.frontend.model_values import make_task
    from .compiler.frontend.task import Task
    from .compiler.network import Network
    from .compiler.passes import PassError
    from .compiler.pipeline import Pipeline, parse_pipeline
    from .deploying import export, verify
    from .ir import Graph, NascError, UsageError
    from .loading import load_network, load_task, lower
    from .search.run import Result
    from .targets.energy import EnergyMeter
    from .targets.latency import LatencyMeter

_HOME = {
    "compile": ".api",
    "export": ".deploying",
    "load_network": ".loading",
    "load_task": ".loading",
    "lower": ".loading",
    "measure": ".api",
    "profile": ".api",
    "sensitivity": ".api",
    "space": ".api",
    "verify": ".deploying",
    "EnergyMeter": ".targets.energy",
    "Graph": ".ir",
    "LatencyMeter": ".targets.latency",
    "NascError": ".ir",
    "Network": ".compiler.network",
    "PassError": ".compiler.passes",
    "Pipeline": ".compiler.pipeline",
    "Result": ".search.run",
    "Task": ".compiler.frontend.task",
    "UsageError": ".ir",
    "make_task": ".compiler.frontend.model_values",
    "parse_pipeline": ".compiler.pipeline",
}

__all__ = [
    "EnergyMeter",
    "Graph",
    "LatencyMeter",
    "NascError",
    "Network",
    "PassError",
    "Pipeline",
    "Result",
    "Task",
    "UsageError",
    "__version__",
    "compile",
    "export",
    "load_network",
    "load_task",
    "lower",
    "make_task",
    "measure",
    "parse_pipeline",
    "profile",
    "sensitivity",
    "space",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'nasc' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
