"""Trained weights in files: read them without running code, and fit them to a module."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..ir.errors import NascError, UsageError

LAYOUTS = ("state_dict", "model_state_dict", "model")
"""Keys under which trainers put the weights beside their own state: Lightning, the PyTorch tutorial, timm."""

PREFIXES = ("model.", "module.", "_orig_mod.", "net.", "network.")
"""What wrappers put before a module's names: LightningModule, DataParallel, torch.compile, a person's own."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The named tensors of a `.safetensors` file or of one written by `torch.save`.

    Files of `torch.save` are read with `weights_only=True`, so that reading never runs code. Trainers such as Lightning
    put objects of their own beside the weights (hyperparameters, callbacks): these are read as inert placeholders.

    Raises:
        UsageError: there is no such file.
        NascError: it holds pickled code, is damaged, or holds no named tensors.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint", mend="Name a file relative to the model file's folder.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise NascError(f"{path}: not a safetensors file: {error}") from error
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if (held := _beside_objects(path)) is None:
            raise NascError(
                f"{path}: holds more than tensors, and loading it would run the code in it",
                mend="Save the weights alone: torch.save(model.state_dict(), path).",
            ) from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        raise NascError(f"{path}: not a checkpoint that torch.load can read: {error}") from error
    return _named_tensors(held, path)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Put named tensors into a module; a prefix that a wrapper put before all names is taken off.

    Raises:
        NascError: a name is missing, left over or has another shape; the message shows the first of each.
    """
    fitted = _without_prefix(module, weights)
    if faults := _faults(module, fitted):
        raise NascError(
            f"{source} does not fit the model ({type(module).__name__}):\n    " + "\n    ".join(faults),
            mend="Give the checkpoint of this network, or change the model back to the one that was trained.",
        )
    module.load_state_dict(dict(fitted), strict=False)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        NascError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NascError(f"{folder}: cannot be made: {error.strerror}") from error


class _Inert:
    """Stands in for the classes of a checkpoint's objects: what is made of it is an empty mapping.

    It is a mapping since torch's reader puts items and attributes into nothing else.
    """

    def __new__(cls, *_args: object, **_kwargs: object) -> OrderedDict[Any, Any]:  # pyright: ignore[reportInconsistentConstructor]
        return OrderedDict()


def _beside_objects(path: Path) -> Mapping[str, Any] | None:
    """A trainer's file with its own objects made inert; None where named tensors do not lie beside them."""
    try:
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        inert: list[Any] = [(type("Inert", (_Inert,), {}), name) for name in unknown]
        with torch.serialization.safe_globals(inert):
            held = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, AttributeError, IndexError):
        return None
    named = isinstance(held, Mapping) and any(isinstance(held.get(layout), Mapping) for layout in LAYOUTS)
    return cast("Mapping[str, Any]", held) if named else None


def _named_tensors(held: Any, path: Path) -> dict[str, Tensor]:
    for layout in (None, *LAYOUTS):
        found = held if layout is None else held.get(layout) if isinstance(held, Mapping) else None
        if isinstance(found, Mapping) and found and all(isinstance(value, Tensor) for value in found.values()):
            return {str(name): value for name, value in cast("Mapping[object, Tensor]", found).items()}
    keys = ", ".join(map(str, held)) if isinstance(held, Mapping) else type(held).__name__
    raise NascError(
        f"{path}: expected named tensors, at the top or under one of {', '.join(LAYOUTS)}; found {keys}",
        mend="Save the weights alone: torch.save(model.state_dict(), path).",
    )


def _without_prefix(module: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights under the module's own names: the prefix with which most names fit is taken off."""
    expected = [name for name in module.state_dict() if not name.endswith("num_batches_tracked")]
    if not expected:
        return weights
    last = expected[-1]
    ends = sorted(name.removesuffix(last) for name in weights if name.endswith(last))
    prefixes = dict.fromkeys(("", *PREFIXES, *ends))
    prefix = max(prefixes, key=lambda prefix: sum(prefix + name in weights for name in expected))
    return {name.removeprefix(prefix): held for name, held in weights.items() if name.startswith(prefix)}


def _faults(module: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    expected = cast("dict[str, Tensor]", module.state_dict())
    present = {_storage(expected[name]) for name in expected if name in weights}
    missing = [
        name
        for name, held in expected.items()
        if name not in weights
        and not name.endswith("num_batches_tracked")  # checkpoints of torch before 0.4.1 have none
        and _storage(held) not in present  # tied to one that is there
    ]
    unknown = [name for name in weights if name not in expected]
    other = [
        f"{name} is {list(weights[name].shape)} in the checkpoint and {list(held.shape)} in the model"
        for name, held in expected.items()
        if name in weights and weights[name].shape != held.shape
    ]
    faults = [*other[:3], *([f"… and {len(other) - 3} more of another shape"] if len(other) > 3 else [])]
    for what, names in (("not in the checkpoint", missing), ("not in the model", unknown)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            faults.append(f"{', '.join(names[:3])}{more}: {what}")
    return faults


def _storage(held: Tensor) -> tuple[object, ...]:
    return held.untyped_storage().data_ptr(), held.storage_offset(), tuple(held.shape), held.stride()
