"""The server's own log, on stderr: as text for people or as JSON lines. Only the supervisor's process writes it."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from loguru import logger

from ..runtime import wire

if TYPE_CHECKING:
    from loguru import Record

_TEXT = "<green>{time:YYYY-MM-DD HH:mm:ss.SSS}</green> <level>{level: <7}</level> {extra[source]}{message}"


def configure(log_format: str) -> None:
    """Let everything that this process logs go to stderr, as `text` or `json`. Only for processes that are ours."""
    logger.remove()
    logger.configure(extra={"source": ""})
    # diagnose=False: the values of variables in a traceback may be secrets
    if log_format == "json":
        logger.add(sys.stderr, serialize=True, level="INFO", diagnose=False)
    else:
        logger.add(sys.stderr, format=_TEXT, level="INFO", diagnose=False)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.WARNING, force=True)


def relay(record: wire.Record, worker: int) -> None:
    """Log a line that came from a worker."""

    def rename(target: Record) -> None:
        target["name"] = record.logger

    text = record.message if record.exception is None else f"{record.message}\n{record.exception}"
    level = logging.getLevelName(record.level)
    logger.bind(source=f"[worker {worker}] {record.logger}: ").patch(rename).log(
        level if level in _LEVELS else record.level, "{}", text
    )


_LEVELS = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})


class _ToLoguru(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        options: dict[str, Any] = {"exception": record.exc_info}
        level = record.levelname if record.levelname in _LEVELS else record.levelno
        logger.opt(**options).log(level, "{}", record.getMessage())
