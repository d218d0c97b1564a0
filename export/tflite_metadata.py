"""What a TFLite file says about itself.

Two ways, since readers differ: the standard `TFLITE_METADATA` buffer (LiteRT metadata schema,
read by MediaPipe and ML Kit), and files appended as a zip archive (`labels.txt`, which the
schema refers to, and `metadata.json` with everything), read by any zip library.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from effnetv2_tf.export.files import LABELS_FILE, labels_text
from effnetv2_tf.export.loading import Exportable

JSON_FILE = "metadata.json"
_BUFFER_NAME = b"TFLITE_METADATA"
# Constants of the LiteRT metadata schema, version 1.
_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"
_CONTENT_IMAGE = 2
_COLOR = {1: 2, 3: 1}  # channels to GRAYSCALE, RGB
_PROCESS_NORMALIZATION = 1
_FILE_TENSOR_AXIS_LABELS = 2

# A table is a list of (slot, kind, value); slots are the field numbers of the schema.
Table = list[tuple[int, str, Any]]


def add_metadata(
    content: bytes,
    exportable: Exportable,
    *,
    image_size: int,
    any_batch: bool,
    any_size: bool,
    preprocessing: bool,
) -> bytes:
    """Adds metadata to a TFLite file, and frees what may vary of its input's shape.

    Args:
      content: of the file.
      exportable: what it is made from.
      image_size: side of the input's default shape.
      any_batch: whether the number of images is declared as dynamic.
      any_size: whether height and width are.
      preprocessing: whether the file normalises pixels itself.

    Returns:
      The new content.
    """
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    _free_shapes(model, any_batch, any_size)
    standard = schema.BufferT()
    standard.data = np.frombuffer(_standard_metadata(exportable, preprocessing), np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = _BUFFER_NAME, len(model.buffers)
    model.buffers.append(standard)
    model.metadata = [*(model.metadata or []), entry]
    model.description = exportable.graph.name.encode()
    content = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    metadata = exportable.metadata()
    metadata["input"]["default_image_size"] = image_size
    metadata["input"]["any_batch_size"] = any_batch
    metadata["input"]["any_image_size"] = any_size
    if not preprocessing:
        metadata["input"]["normalization"]["inside_the_model"] = False
    return _with_archive(content, exportable, metadata)


def read_metadata(content: bytes) -> tuple[dict[str, Any], list[str]]:
    """The JSON metadata and the labels of a file that `add_metadata` made."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        metadata = json.loads(archive.read(JSON_FILE))
        labels = archive.read(LABELS_FILE).decode().split("\n")[:-1]
    return metadata, labels


def _free_shapes(model: Any, any_batch: bool, any_size: bool) -> None:
    """Declares batch, height and width of the input and the output as dynamic.

    Converting with fixed shapes and freeing them afterwards keeps a useful default shape: the
    graph has no constant that depends on them, which verification checks at other sizes.
    """
    graph = model.subgraphs[0]
    for index in (graph.inputs[0], graph.outputs[0]):
        tensor = graph.tensors[index]
        shape = np.array(tensor.shape, np.int32)
        if any_batch:
            shape[0] = -1
        if any_size and len(shape) == 4:
            shape[1:3] = -1
        tensor.shapeSignature = shape


def _with_archive(content: bytes, exportable: Exportable, metadata: dict[str, Any]) -> bytes:
    """The model with an archive of files behind it, as Android's reader expects them.

    It maps the files, so they are stored, not deflated; and it takes the archive's offsets as
    those of the whole file, which is what appending gives.
    """
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(LABELS_FILE, labels_text(exportable.output_labels))
        archive.writestr(JSON_FILE, json.dumps(metadata, indent=1))
    return buffer.getvalue()


def _standard_metadata(exportable: Exportable, preprocessing: bool) -> bytes:
    graph = exportable.graph
    normalization = graph.normalization
    mean, std = [0.0], [1.0]  # what is left for the caller to do
    if normalization is not None and not preprocessing:
        mean, std = list(normalization.mean), list(normalization.std)
    pixels = "pixels in [0, 255]" if preprocessing else "normalized pixels"
    process: Table = [
        (0, "uint8", _PROCESS_NORMALIZATION),
        (1, "table", [(0, "floats", mean), (1, "floats", std)]),
    ]
    content: Table = [
        (0, "uint8", _CONTENT_IMAGE),
        (1, "table", [(0, "int8", _COLOR.get(graph.channels, 0))]),
    ]
    image: Table = [
        (0, "string", "image"),
        (1, "string", f"{pixels}, {graph.channels} channels"),
        (3, "table", content),
        (4, "tables", [process]),
        (5, "table", [(0, "floats", [255.0]), (1, "floats", [0.0])]),
    ]
    output: Table = [(0, "string", graph.output_name)]
    if exportable.output_labels:
        labels: Table = [(0, "string", LABELS_FILE), (2, "int8", _FILE_TENSOR_AXIS_LABELS)]
        output.append((6, "tables", [labels]))
    subgraph: Table = [(2, "tables", [image]), (3, "tables", [output])]
    root: Table = [
        (0, "string", graph.name),
        (1, "string", exportable.origin),
        (3, "tables", [subgraph]),
        (7, "string", _PARSER_VERSION),
    ]
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write_table(builder, root), _IDENTIFIER)
    return bytes(builder.Output())


def _write_table(builder: Any, table: Table) -> int:
    """Writes a table's children, then the table: flatbuffers are written inside out."""
    written = [(slot, kind, _write_child(builder, kind, value)) for slot, kind, value in table]
    builder.StartObject(max(slot for slot, _, _ in table) + 1)
    for slot, kind, value in written:
        if kind == "uint8":
            builder.PrependUint8Slot(slot, value, 0)
        elif kind == "int8":
            builder.PrependInt8Slot(slot, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return builder.EndObject()


def _write_child(builder: Any, kind: str, value: Any) -> Any:
    """The offset of what lies outside the table; numbers lie inside."""
    if kind == "string":
        return builder.CreateString(value)
    if kind == "floats":
        return builder.CreateNumpyVector(np.asarray(value, np.float32))
    if kind == "table":
        return _write_table(builder, value)
    if kind == "tables":
        offsets = [_write_table(builder, table) for table in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    return value
