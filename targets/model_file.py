"""The file that somebody names to be measured or profiled: an ONNX model, or an error that says what it is."""

from __future__ import annotations

from pathlib import Path

from ..ir.errors import UsageError

MENDS = {
    ".nasc": "Write it as ONNX first: nasc export {source}",
    ".py": "Write it as ONNX first: nasc export {source}",
    ".pt2": "Write it as ONNX first: nasc export {source}",
    ".safetensors": "Name the network that these weights belong to, as an ONNX file.",
}
"""What makes an ONNX file of something else, by its suffix."""

EXPORT = "Export the model with torch.onnx.export or `nasc export` first."

ORT_FORMAT = b"ORTM"
"""Stands at byte 4 of ONNX Runtime's own format, which it loads as well."""


def model_file(source: str | Path, asker: str) -> Path:
    """An ONNX file, as far as can be told without running anything.

    Args:
        source: what was named.
        asker: who takes it, for messages: `measure`, `profile`.

    Raises:
        UsageError: there is no such file, it may not be read, or it is something else.
    """
    try:
        return _model_file(source, asker)
    except PermissionError as error:
        raise UsageError(
            f"{source}: error: this file may not be read (permission denied)",
            mend=f"Allow it with `chmod a+r {source}`, and `a+x` on its folders; or run nasc as its owner.",
        ) from error


def _model_file(source: str | Path, asker: str) -> Path:
    """See `model_file`.

    Raises:
        PermissionError: it may not be read.
    """
    import onnx
    from google.protobuf.message import DecodeError

    path = Path(source)
    if not path.exists():
        raise UsageError(f"{source}: error: there is no such file")
    if not path.is_file():
        raise UsageError(f"{source}: error: {asker} takes ONNX files; found a folder", mend="Name the file in it.")
    if path.suffix in MENDS:
        mend = MENDS[path.suffix].format(source=str(source))
        raise UsageError(f"{source}: error: {asker} takes ONNX files; found a {path.suffix} file", mend=mend)
    if is_ort_format(path):
        return path
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError):
        model = onnx.ModelProto()
    if not model.HasField("graph"):
        raise UsageError(f"{source}: error: {asker} takes ONNX files; found no ONNX model in this one", mend=EXPORT)
    return path


def is_ort_format(path: Path) -> bool:
    """Whether a file is in ONNX Runtime's own format."""
    with path.open("rb") as stream:
        return stream.read(8)[4:] == ORT_FORMAT
