"""The key of the embedded database."""

from __future__ import annotations

import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from queued_tasks import ConfigurationError, Settings
from queued_tasks.runtime.database import with_key
from queued_tasks.runtime.embedded_home import claim
from queued_tasks.runtime.own_key import own_key


def test_it_is_made_once(tmp_path: Path) -> None:
    assert own_key(tmp_path) == own_key(tmp_path)
    assert len(own_key(tmp_path)) > 40


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    own_key(tmp_path)
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_all_who_make_it_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(own_key, [tmp_path] * 32))
    assert len(keys) == 1
    assert len([*tmp_path.iterdir()]) == 1


def test_one_that_others_can_read_is_refused(tmp_path: Path) -> None:
    own_key(tmp_path)
    (tmp_path / "secret.key").chmod(0o640)
    with pytest.raises(ConfigurationError, match="Other users may read"):
        own_key(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "known").write_text("known to others")
    (tmp_path / "secret.key").symlink_to(tmp_path / "known")
    with pytest.raises(ConfigurationError, match="can't be read"):
        own_key(tmp_path)


def test_an_empty_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.key").touch(0o600)
    with pytest.raises(ConfigurationError, match="is empty"):
        own_key(tmp_path)


def test_the_embedded_database_uses_it() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        claim(Path(folder) / "data")
        settings = with_key(Settings(data_dir=Path(folder) / "data"))
        assert (Path(folder) / "data" / "secret.key").exists()
    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() not in repr(settings)


@pytest.mark.parametrize("given", [{"secret_key": "own"}, {"database_url": "postgresql://localhost/other"}])
def test_what_is_configured_stays_as_it_is(given: dict[str, str], tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, **given)
    assert with_key(settings) is settings
    assert not [*tmp_path.iterdir()]
