"""What the pages show is run as it stands."""

from __future__ import annotations

import asyncio
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.command import Ran, environment, started
from tests.docs.blocks import LANGUAGES, SERVER, blocks_of, write_files
from tests.docs.tables import DOCS, ROOT

PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
RUNNER = Path(__file__).with_name("blocks.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the shop's application."""
    return shutil.copytree(ROOT / "examples" / "shop", tmp_path / "shop", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.mark.parametrize("name", PAGES)
async def test_the_code_of_the_page_does_what_the_page_says(name: str, database: str, folder: Path) -> None:
    write_files(DOCS / name, folder)
    server = started("start", "--workers", 1, database=database, cwd=folder)
    async with server if needs_server(DOCS / name) else nullcontext():
        ran = await run(DOCS / name, database, folder)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("name", PAGES)
def test_every_block_says_in_what_language_it_is(name: str) -> None:
    assert [block.line for block in blocks_of(DOCS / name) if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("name", PAGES)
def test_no_block_escapes_the_runner(name: str) -> None:
    fences = [line for line in (DOCS / name).read_text().splitlines() if line.startswith("```")]
    assert len(fences) == 2 * len(blocks_of(DOCS / name))


def needs_server(page: Path) -> bool:
    return SERVER in page.read_text()


async def run(page: Path, database: str, folder: Path) -> Ran:
    """Run the code of a page to its end."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, str(RUNNER), str(page)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=environment(database),
    )
    out, err = await running.communicate()
    assert running.returncode is not None
    return Ran(running.returncode, out.decode(), err.decode())
