"""A small disk that can be filled up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MEGABYTE = 1024 * 1024


class Disk:
    """What is mounted at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave not a byte."""
        with self._ballast.open("wb", buffering=0) as ballast:
            for size in (MEGABYTE, 4096):
                self._write_until_full(ballast.fileno(), bytes(size))

    def free(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink()

    @staticmethod
    def _write_until_full(file: int, chunk: bytes) -> None:
        try:
            while os.write(file, chunk) == len(chunk):
                pass
        except OSError:
            return


@contextmanager
def small_disk(folder: Path, owner: tuple[int, int], *, megabytes: int = 8) -> Iterator[Disk]:
    """A disk of its own at `folder`, which is made. Skips the test where the machine lets nobody mount any."""
    if os.geteuid():
        pytest.skip("needs a small disk: run it as root")
    folder.mkdir()
    options = f"size={megabytes}m,mode=700,uid={owner[0]},gid={owner[1]}"
    ran = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False, capture_output=True, text=True
    )
    if ran.returncode:
        pytest.skip(f"needs a small disk, which this machine does not allow: {ran.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
