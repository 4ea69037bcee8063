"""Hosts with addresses of their own on one machine: network namespaces, each on a cable to the one of PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid4

import pytest

PROGRAM = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
ADDRESS = "10.213.0.1"  # of PostgreSQL; nobody outside of these namespaces sees it


class Network:
    """A switch in the namespace of PostgreSQL, and a cable from it to each host."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._name = f"qt-{uuid4().hex[:8]}"
        self._hosts = hosts
        self.database = self.namespace("db")

    def namespace(self, host: str) -> str:
        """The name of the namespace of a host."""
        return f"{self._name}-{host}"

    def plug(self) -> None:
        """Make all of it."""
        _ip("netns", "add", self.database)
        self._inside("db", "link", "add", "switch", "type", "bridge")
        self._inside("db", "addr", "add", f"{ADDRESS}/24", "dev", "switch")
        self._inside("db", "link", "set", "lo", "up")
        self._inside("db", "link", "set", "switch", "up")
        for number, host in enumerate(self._hosts, 11):
            _ip("netns", "add", self.namespace(host))
            cable = f"to-{host}"
            peer = ("peer", "name", "eth0", "netns", self.namespace(host))
            self._inside("db", "link", "add", cable, "type", "veth", *peer)
            self._inside("db", "link", "set", cable, "master", "switch", "up")
            self._inside(host, "addr", "add", f"{ADDRESS[:-1]}{number}/24", "dev", "eth0")
            self._inside(host, "link", "set", "lo", "up")
            self._inside(host, "link", "set", "eth0", "up")

    def cut(self, *hosts: str) -> None:
        """Pull the cables of these hosts: nothing reaches them or comes from them, and nobody is told."""
        for host in hosts:
            self._inside("db", "link", "set", f"to-{host}", "down")

    def heal(self, *hosts: str) -> None:
        """Put the cables back."""
        for host in hosts:
            self._inside("db", "link", "set", f"to-{host}", "up")

    def remove(self) -> None:
        """Whatever of it was made."""
        made = _ip("netns", "list").split()
        for host in (*self._hosts, "db"):
            if self.namespace(host) in made:
                _ip("netns", "del", self.namespace(host))

    def _inside(self, host: str, *arguments: str) -> None:
        _ip("-n", self.namespace(host), *arguments)


@contextmanager
def network(*hosts: str) -> Iterator[Network]:
    """Names of hosts have a few letters. Skips the test where the machine lets nobody make networks."""
    if os.geteuid():
        pytest.skip("needs network namespaces: run it as root")
    if PROGRAM is None and "CI" not in os.environ:
        pytest.skip("needs network namespaces: apt-get install iproute2")
    made = Network(hosts)
    try:
        try:
            made.plug()
        except PermissionError as error:
            pytest.skip(f"needs network namespaces, which this machine does not allow: {error}")
        yield made
    finally:
        made.remove()


def _ip(*arguments: str) -> str:
    assert PROGRAM
    ran = subprocess.run([PROGRAM, *arguments], check=False, capture_output=True, text=True)
    if ran.returncode and ("not permitted" in ran.stderr or "denied" in ran.stderr or "not supported" in ran.stderr):
        raise PermissionError(ran.stderr.strip())
    assert not ran.returncode, f"ip {' '.join(arguments)}: {ran.stderr}"
    return ran.stdout
