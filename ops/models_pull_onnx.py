"""The network wanted out of a published ONNX file: unpacked from its zip, cut out where it is part of more.

A published text encoder may begin before the token table and end behind the projection. Hailo's parser is
told where to cut (the names of the first and the last node); the same cut here gives the same network, which
takes rows of the token table and gives one vector a token.
"""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from pathlib import Path
from typing import Any, Final

from hailo_clip.ops.models_pull_sources import Cut
from hailo_clip.shared.errors import ModelError

MAX_BYTES: Final = 4 << 30
"""Largest network that is unpacked."""

_NEEDS_ONNX = "cutting the text network out of its ONNX file needs onnx; type: pip install 'hailo-clip[demo]'"


def check_libraries(cut: Cut | None) -> None:
    """Raise `ModelError` when what is needed after the download is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise ModelError("ONNX networks need onnxruntime; type: pip install 'hailo-clip[onnx]'")
    if cut is not None and importlib.util.find_spec("onnx") is None:
        raise ModelError(_NEEDS_ONNX)


def unpack(archive: Path, member: str | None, target: Path) -> None:
    """Write the .onnx file of the zip `archive` to `target`.

    Args:
        archive: the zip.
        member: the file's name in it, whatever folder it lies in; None: its only .onnx file.
        target: where to.

    Raises:
        ModelError: it is no zip or damaged, or the file is not there, not alone or too large.
        OSError: `target` can't be written.
    """
    try:
        with zipfile.ZipFile(archive) as found:
            info = _member(archive, found, member)
            if info.file_size > MAX_BYTES:
                raise ModelError(f"{archive}: {info.filename} would have {info.file_size} bytes")
            with found.open(info) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as e:
        archive.unlink(missing_ok=True)
        raise ModelError(f"{archive} is no zip that can be read, and was thrown away: {e}") from e


def cut_out(source: Path, cut: Cut, context: int, width: int, target: Path) -> None:
    """Write the network from node `cut.start` to node `cut.end` of `source` to `target`.

    It takes float32 ``[n, context, width]``, what `cut.start` was given by the nodes before it, and gives
    what `cut.end` gave; n is 1 where the file has one item a run.

    Raises:
        ModelError: onnx is not installed, the file can't be read, a node is not in it, or the network
            between them needs more than that one input.
        OSError: `target` can't be written.
    """
    try:
        import onnx
    except ImportError as e:
        raise ModelError(_NEEDS_ONNX) from e
    try:
        model = onnx.load(str(source))
    except Exception as e:  # protobuf's errors and onnx's own
        raise ModelError(f"{source}: onnx cannot read it: {e}") from e
    graph = model.graph
    first, last = _node(source, graph, cut.start), _node(source, graph, cut.end)
    entry, exit_ = _entry(source, graph, first), str(last.output[0])
    batch = _batch(graph)
    nodes = _between(source, graph, entry, exit_)
    used = {name for node in nodes for name in node.input}
    shape = [batch, context, width]
    given = onnx.helper.make_tensor_value_info(entry, onnx.TensorProto.FLOAT, shape)
    made = onnx.helper.make_tensor_value_info(exit_, onnx.TensorProto.FLOAT, shape)
    weights = [i for i in graph.initializer if i.name in used]
    part = onnx.helper.make_graph(nodes, f"{graph.name}_cut", [given], [made], weights)
    made_model = onnx.helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    made_model.functions.extend(model.functions)
    onnx.save(made_model, str(target))


def _member(archive: Path, found: zipfile.ZipFile, member: str | None) -> zipfile.ZipInfo:
    files = [i for i in found.infolist() if not i.is_dir() and i.filename.endswith(".onnx")]
    named = [i for i in files if member is not None and Path(i.filename).name == member]
    if len(named) == 1:
        return named[0]
    if len(files) == 1:  # renamed by its publisher: there is nothing else that could be meant
        return files[0]
    wanted = f"no {member}" if member else "not exactly one .onnx file"
    names = ", ".join(i.filename for i in found.infolist()[:8]) or "nothing"
    raise ModelError(f"{archive} holds {wanted}; it holds {names}")


def _node(source: Path, graph: Any, name: str) -> Any:
    found = [n for n in graph.node if n.name == name]
    if len(found) != 1:
        first, last = (", ".join(n.name for n in some) for some in (graph.node[:4], graph.node[-4:]))
        raise ModelError(
            f"{source} has {len(found)} nodes named {name!r}, expected one; its first are {first}, its last "
            f"{last}"
        )
    return found[0]


def _entry(source: Path, graph: Any, node: Any) -> str:
    """The one input of `node` that is neither a weight nor a constant."""
    fixed = {i.name for i in graph.initializer}
    fixed |= {o for n in graph.node if n.op_type == "Constant" for o in n.output}
    variable = [str(i) for i in node.input if i and i not in fixed]
    if len(variable) != 1:
        raise ModelError(f"{source}: node {node.name} has {len(variable)} inputs that vary, expected one")
    return variable[0]


def _batch(graph: Any) -> int | str:
    """The batch size that the graph was made for: 1, or a name for any."""
    fixed = {i.name for i in graph.initializer}
    for given in graph.input:
        dims = given.type.tensor_type.shape.dim
        if given.name not in fixed and dims:
            return 1 if dims[0].dim_value == 1 else "n"
    return "n"


def _between(source: Path, graph: Any, entry: str, exit_: str) -> list[Any]:
    """The nodes that `exit_` needs when `entry` is given, in the graph's order."""
    nodes = list(graph.node)
    maker = {output: i for i, node in enumerate(nodes) for output in node.output if output}
    fixed = {i.name for i in graph.initializer}
    needed: set[int] = set()
    waiting, seen = [exit_], {entry, ""}
    while waiting:
        name = waiting.pop()
        if name in seen or name in fixed:
            continue
        seen.add(name)
        if name not in maker:
            raise ModelError(f"{source}: the network from the cut on also needs the input {name}")
        needed.add(maker[name])
        waiting += list(nodes[maker[name]].input)
    if not any(entry in nodes[i].input for i in needed):
        raise ModelError(f"{source}: the node at which the network ends does not depend on where it starts")
    return [nodes[i] for i in sorted(needed)]
