"""Actions from files: a NumPy array, or the table that stands beside an episode's video.

Axis legend: F frames, A action numbers.
"""

from pathlib import Path

import numpy as np

from worldfoundry.core.errors import DataError


def read_actions(path: Path) -> np.ndarray:
    """float32 [F, A] from `.npy`, or from the `action` column of a `.parquet`. Raises DataError that names the file."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"The actions file {str(path)!r} does not exist.")
    actions = _from_parquet(path) if path.suffix == ".parquet" else _from_npy(path)
    if actions.ndim != 2 or not len(actions) or not np.isfinite(actions).all():
        raise DataError(
            f"{str(path)!r} must hold finite numbers [frames, actions], not {actions.dtype} {list(actions.shape)!r}."
        )
    return actions.astype(np.float32)


def _from_parquet(path: Path) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{str(path)!r} is not a readable parquet file: {error}.") from error
    if "action" not in table.column_names:
        raise DataError(f"{str(path)!r} has no column 'action', only {', '.join(table.column_names)}.")
    return np.array(table["action"].to_pylist(), dtype=np.float64)


def _from_npy(path: Path) -> np.ndarray:
    how = "Write one with numpy.save, or give an `.episode.parquet`."
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        # NumPy's own words about pickles would advise loading it unsafely.
        raise DataError(f"{str(path)!r} is not a readable .npy array of numbers.", how) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        what = f"{array.dtype} values" if isinstance(array, np.ndarray) else "an archive of arrays"
        raise DataError(f"{str(path)!r} must hold one array of real numbers, not {what}.", how)
    return array.astype(np.float64)
