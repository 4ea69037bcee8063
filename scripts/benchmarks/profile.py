"""Shows where the supervisor and a worker spend their time under load, by samples that py-spy takes from outside."""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import psutil

from .contestant import Contestant, Trial
from .environments import LOCAL, OURS, Failed, make
from .postgres import cpu_of, running_postgres
from .recorder import Records

TOOL = LOCAL / "bench" / "py-spy"
PACKAGES = ("py-spy==0.4.1",)
SUFFIXES = {"flamegraph": "svg", "speedscope": "json", "raw": "txt"}


def main() -> None:
    """Profile a drain and say where the profiles are."""
    parser = argparse.ArgumentParser(prog="scripts/profile", description=main.__doc__)
    parser.add_argument("--tasks", type=int, default=200_000, help="how many are drained (default: 200,000)")
    parser.add_argument("--seconds", type=int, default=5, help="how long samples are taken (default: 5)")
    parser.add_argument("--kind", choices=("noop", "noop_sync", "nap"), default="noop", help="what the tasks do")
    parser.add_argument("--format", choices=list(SUFFIXES), default="flamegraph", help="what is written")
    parser.add_argument("--native", action="store_true", help="show functions in C, too")
    parser.add_argument("--out", type=Path, default=LOCAL / "bench" / "profile", help="the folder for the profiles")
    asked = parser.parse_args()
    make(TOOL, PACKAGES)
    with running_postgres() as postgres, tempfile.TemporaryDirectory(prefix="queued-tasks-profile-") as scratch:
        who = Contestant(OURS, postgres, Path(scratch))
        filled = who.filled(asked.tasks, asked.kind)
        with who.trial(asked.tasks, filled) as trial, who.workers(trial, 2) as (supervisor,):
            _wait_for_load(trial, supervisor)
            _record({"supervisor": supervisor, "worker": _busiest(supervisor)}, asked)


def _wait_for_load(trial: Trial, supervisor: psutil.Process) -> None:
    records = Records(trial.records)
    while not records.started():
        if not supervisor.is_running():
            raise Failed((trial.records / "log").read_text()[-600:])
        psutil.wait_procs([supervisor], timeout=0.05)


def _busiest(supervisor: psutil.Process) -> psutil.Process:
    """A worker at work; the standby is idle."""
    children = supervisor.children(recursive=True)
    before = {child: cpu_of(child) for child in children}
    psutil.wait_procs([supervisor], timeout=0.5)
    return max(children, key=lambda child: cpu_of(child) - before[child])


def _record(processes: dict[str, psutil.Process], asked: argparse.Namespace) -> None:
    asked.out.mkdir(parents=True, exist_ok=True)
    started = []
    for name, process in processes.items():
        path = asked.out / f"{name}.{SUFFIXES[asked.format]}"
        command = [str(TOOL / "bin" / "py-spy"), "record", "--pid", str(process.pid), "--output", str(path)]
        options = ["--format", asked.format, "--duration", str(asked.seconds), "--rate", "250"]
        native = ["--native"] if asked.native else []
        started.append((path, subprocess.Popen([*command, *options, *native], stdout=subprocess.DEVNULL)))
    for path, running in started:
        if running.wait():
            raise Failed("py-spy could not take samples: it needs root, or the right to trace processes.")
        print(path)


if __name__ == "__main__":
    main()
