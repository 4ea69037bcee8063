"""What has to be set alike wherever the queue is used: each server tells it, so that differences can be found."""

from __future__ import annotations

import hashlib
import hmac

from .settings import Settings
from .task import Json

_PURPOSE = b"queued-tasks fingerprint"
_DIGITS = 8


def alike(settings: Settings) -> dict[str, Json]:
    """These settings by the names of their variables; of secret keys only fingerprints."""
    return {
        "QUEUE_USE_POSTGRESQL_NOTIFY": settings.use_postgresql_notify,
        "QUEUE_NOTIFY_CHANNEL": settings.notify_channel,
        "QUEUE_LEASE_TTL": settings.lease_ttl.total_seconds(),
        "QUEUE_RETENTION_DAYS": settings.retention_days,
        "QUEUE_ONLY_DECORATED": settings.only_decorated,
        "QUEUE_ALLOW_UNSIGNED": sorted(settings.allow_unsigned),
        "QUEUE_SECRET_KEY": _fingerprints(settings),
        "QUEUE_CHANNELS": settings.channels,
    }


def _fingerprints(settings: Settings) -> list[str]:
    if settings.secret_key is None:
        return []
    keys = settings.secret_key.get_secret_value().split(",")
    return sorted(hmac.digest(key.strip().encode(), _PURPOSE, hashlib.sha256).hex()[:_DIGITS] for key in keys)
