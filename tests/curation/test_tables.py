"""Tables exist even where empty, with their schemas; rows come back as written."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from worldfoundry.curation.tables import SCHEMAS, read_table, write_table


@pytest.mark.parametrize("name", SCHEMAS)
def test_empty_tables_have_their_schema(tmp_path: Path, name: str) -> None:
    write_table(tmp_path, name, [])
    schema = pq.read_schema(tmp_path / f"{name}.parquet")
    assert {field.name: field.type for field in schema} == dict(SCHEMAS[name])
    assert b"worldfoundry.clips/1" in schema.metadata[b"worldfoundry"]
    assert read_table(tmp_path, name) == []


def test_rows_come_back_and_lacking_columns_are_null(tmp_path: Path) -> None:
    row = {"uri": "a", "source_id": None, "stage": "probe", "code": "NOT_MEDIA", "message": "no", "attempt": 1, "bytes": 3}
    write_table(tmp_path, "quarantine", [row, {"uri": "b"}])
    back = read_table(tmp_path, "quarantine")
    assert back[0] == row
    assert back[1] == {**dict.fromkeys(row), "uri": "b"}
    assert read_table(tmp_path, "sources") == []
