"""Rows like those of TPC-H's lineitem, drawn on the workers: the same for the same seed."""

from __future__ import annotations

from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa

_CENTS = pa.decimal128(15, 2)
_MODES = np.array(["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"])
_WORDS = np.array(
    ["carefully", "final", "deposits", "sleep", "blithely", "among", "pending", "accounts"]
)
_EPOCH = np.datetime64("1992-01-01", "D")
_CHECKED = ["l_orderkey", "l_partkey", "l_extendedprice"]


def lineitem(rows: int, partitions: int, seed: int) -> dd.DataFrame:
    """Return a frame of about `rows` rows, in `partitions` partitions of the same size."""
    per_partition = max(1, rows // partitions)
    frame: dd.DataFrame = dd.from_map(
        _partition,
        range(partitions),
        rows=per_partition,
        seed=seed,
        meta=_partition(0, rows=1, seed=seed).iloc[:0],
        enforce_metadata=False,
    )
    return frame


def totals(frame: dd.DataFrame) -> dict[str, int]:
    """Count the rows of a frame and add up three of its columns, on the workers."""
    meta = dict.fromkeys(["rows", *_CHECKED], "int64")
    summed = frame.map_partitions(_totals, meta=meta).sum().compute()
    return {str(name): int(value) for name, value in summed.items()}


def checked_columns() -> list[str]:
    """Return the columns that :func:`totals` looks at."""
    return list(_CHECKED)


def _partition(index: int, rows: int, seed: int) -> pd.DataFrame:
    draw = np.random.default_rng([seed, index])
    words = _WORDS[draw.integers(0, len(_WORDS), size=(rows, 4))]
    columns: dict[str, Any] = {
        "l_orderkey": np.arange(rows, dtype="int64") + index * rows,
        "l_partkey": draw.integers(1, 200_000, rows),
        "l_suppkey": draw.integers(1, 10_000, rows),
        "l_linenumber": draw.integers(1, 8, rows).astype("int32"),
        "l_quantity": _decimals(draw.integers(100, 5_001, rows)),
        "l_extendedprice": _decimals(draw.integers(90_000, 10_500_000, rows)),
        "l_discount": draw.random(rows).round(2),
        "l_shipdate": pa.array(_EPOCH + draw.integers(0, 2_500, rows)),
        "l_shipmode": pa.array(_MODES[draw.integers(0, len(_MODES), rows)]),
        "l_comment": pa.array([" ".join(four) for four in words]),
    }
    # Arrow-backed: decimals as Python objects would take a thousand times longer.
    frame: pd.DataFrame = pa.table(columns).to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def _decimals(cents: np.ndarray[Any, Any]) -> pa.Array:
    """Read numbers of cents as amounts, without touching each of them."""
    wide = np.zeros((len(cents), 2), dtype="int64")
    wide[:, 0] = cents
    return pa.Array.from_buffers(_CENTS, len(cents), [None, pa.py_buffer(wide)])


def _totals(part: pd.DataFrame) -> pd.DataFrame:
    keys = {name: [int(part[name].sum())] for name in _CHECKED[:2]}
    cents = int(part["l_extendedprice"].sum() * 100)
    return pd.DataFrame({"rows": [len(part)], **keys, "l_extendedprice": [cents]}).astype("int64")
