"""Columns between NumPy and Arrow, bit for bit.

Axis legend: T frames; the rest of a shape is the feature's own.
"""

import numpy as np
import pyarrow as pa

from worldfoundry.core.errors import DataError
from worldfoundry.data.lerobot.layout import Feature


def check_column(key: str, feature: Feature, values: np.ndarray, length: int) -> np.ndarray:
    """`values` as (T, *shape), unchanged in its numbers. Raises DataError for another dtype, shape or length, or NaN."""
    values = np.asarray(values)
    if feature.dtype == "string":
        if values.shape != (length,) or not all(isinstance(text, str) for text in values.tolist()):
            raise DataError(f"The column {key!r} must hold {length} strings, not {values.dtype} {list(values.shape)!r}.")
        return values
    if values.dtype != np.dtype(feature.dtype):
        raise DataError(
            f"The column {key!r} is {values.dtype}, but the dataset's feature is {feature.dtype}.",
            f"Convert it on purpose: values.astype({feature.dtype!r}).",
        )
    if values.shape not in ((length, *feature.shape), (length, *feature.frame_shape)):
        raise DataError(f"The column {key!r} has shape {list(values.shape)!r}, not {[length, *feature.shape]!r}.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        frame = int(np.argwhere(~np.isfinite(values.reshape(length, -1)).all(axis=1))[0, 0])
        raise DataError(f"The column {key!r} holds NaN or infinity at frame {frame}.", "Leave the episode out, or repair it.")
    return values


def to_arrow(values: np.ndarray, feature: Feature) -> pa.Array:
    """Scalars as a plain column, vectors as lists of fixed size, higher shapes as nested lists (what the format stores)."""
    if feature.dtype == "string":
        return pa.array(values.tolist(), pa.string())
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    if feature.shape == (1,):
        return array
    if len(feature.shape) == 1:
        return pa.FixedSizeListArray.from_arrays(array, feature.shape[0])
    for length in reversed(feature.shape):
        array = pa.ListArray.from_arrays(np.arange(0, len(array) + 1, length, dtype=np.int32), array)
    return array


def to_numpy(column: pa.ChunkedArray, key: str, feature: Feature, where: str) -> np.ndarray:
    """(T, *shape) in the feature's dtype, (T,) for scalars; strings as an object array.

    Accepts every way in which published files store it (lists of fixed or free length, nested lists, Arrow extension
    types of another library). Raises DataError for missing values or another number of them per frame.
    """
    array: pa.Array = column.combine_chunks()
    if isinstance(array.type, pa.ExtensionType):
        array = array.storage  # type: ignore[attr-defined]
    missing = array.null_count
    while pa.types.is_nested(array.type) and not pa.types.is_struct(array.type):
        array = array.flatten()  # type: ignore[attr-defined]
        missing += array.null_count
    if missing:
        raise DataError(f"The column {key!r} of {where} lacks {missing} values.", "Repair or remove the episode.")
    if feature.dtype == "string":
        return np.array(array.to_pylist(), dtype=object)
    values = array.to_numpy(zero_copy_only=False)
    shape = (len(column), *feature.frame_shape)
    if values.size != int(np.prod(shape)) or values.dtype == object:
        raise DataError(
            f"The column {key!r} of {where} holds {values.size} {array.type} values in {len(column)} rows; "
            f"info.json says {list(feature.shape)!r} per row."
        )
    return values.reshape(shape).astype(feature.dtype, copy=False)
