"""Settings that are more than a number."""

from __future__ import annotations

import pytest

from queued_tasks import ConfigurationError, Settings


@pytest.mark.parametrize(
    ("given", "mib"),
    [(512, 512), ("512", 512), ("512MB", 512), ("512 MiB", 512), ("512m", 512), ("1.5GB", 1536), ("524288K", 512)],
)
def test_a_size_is_a_number_of_mib_or_has_a_unit(given: object, mib: int) -> None:
    assert Settings(max_memory_per_worker=given).max_memory_per_worker == mib * 1024**2


@pytest.mark.parametrize("given", ["much", "-5MB", "5 apples", "", 0])
def test_what_is_no_size_is_refused_by_name(given: object) -> None:
    with pytest.raises(ConfigurationError, match="QUEUE_MAX_MEMORY_PER_WORKER"):
        Settings(max_memory_per_worker=given)
