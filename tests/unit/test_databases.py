"""The tests' own way to name another database of the same server."""

from __future__ import annotations

import pytest

from tests.databases import with_database


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://postgres@/postgres?host=/run/pg", "postgresql://postgres@/other?host=/run/pg"),
        ("postgresql:///postgres?host=/run/pg", "postgresql:///other?host=/run/pg"),
        ("postgresql://u:p@localhost:5432/postgres", "postgresql://u:p@localhost:5432/other"),
        ("postgresql://localhost", "postgresql://localhost/other"),
        ("postgresql://localhost?sslmode=disable", "postgresql://localhost/other?sslmode=disable"),
        ("postgres://u@%2Frun%2Fpg/postgres", "postgres://u@%2Frun%2Fpg/other"),
    ],
)
def test_another_database_of_the_same_server(dsn: str, expected: str) -> None:
    assert with_database(dsn, "other") == expected
