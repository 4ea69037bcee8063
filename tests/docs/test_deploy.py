"""The files to deploy with fit the code: settings, commands, probes, grace periods, and the query of the autoscaler."""

from __future__ import annotations

import asyncio
import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import typer.main
import yaml

from queued_tasks import Settings
from queued_tasks.actors.worker import DRAIN_GRACE
from queued_tasks.integrations.cli.main import app
from queued_tasks.runtime.store.migrate import roles_sql
from queued_tasks.runtime.task import Executor
from tests.databases import connected
from tests.docs.blocks import blocks_of
from tests.docs.tables import DOCS, ROOT, table
from tests.servers import running_server
from tests.store import Store

DEPLOY = DOCS / "deploy"
GRACE = Settings().shutdown_grace.total_seconds() + 10
NAMES = {"DATABASE_URL", *(f"QUEUE_{name.upper()}" for name in Settings.model_fields)}
SYSTEMD = shutil.which("systemd-analyze")


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign,assignment]  # the way to keep the case of the keys
    parser.read(DEPLOY / "queued-tasks.service")
    return parser


def documents(name: str) -> dict[str, Any]:
    """The documents of a file by their kind."""
    return {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / name).read_text())}


def compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return services


def container(kind: str) -> dict[str, Any]:
    (only,) = documents("kubernetes.yaml")[kind]["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def dockerfile() -> list[tuple[str, str]]:
    """The instructions with what follows them."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text())
    lines = (line.partition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return [(word, rest) for word, _, rest in lines]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command line of ours in the files."""
    yield "queued-tasks.service", ["queued-tasks", *shlex.split(unit()["Service"]["ExecStart"])[1:]]
    yield "Dockerfile", json.loads(dict(dockerfile())["CMD"])
    yield from (("compose.yaml", compose()[name]["command"]) for name in ("migrate", "worker"))
    yield from (("kubernetes.yaml", container(kind)["command"]) for kind in ("Job", "Deployment"))


@pytest.mark.parametrize("path", sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_every_variable_of_the_file_is_a_setting(path: Path) -> None:
    assert {*re.findall(r"\b(?:QUEUE|DATABASE)_[A-Z_]+", path.read_text())} - NAMES == set()


@pytest.mark.parametrize(("file", "line"), [*commands()])
def test_the_command_is_one_that_the_command_line_takes(file: str, line: list[str]) -> None:
    assert line[0] == "queued-tasks"
    command = typer.main.get_command(app).commands[line[1]]  # type: ignore[attr-defined]  # typer's group has them
    command.make_context(line[1], [*line[2:]])


def test_every_grace_period_is_above_that_of_the_settings() -> None:
    pod = documents("kubernetes.yaml")["Deployment"]["spec"]["template"]["spec"]
    grants = {
        "systemd": int(unit()["Service"]["TimeoutStopSec"]),
        "compose": int(compose()["worker"]["stop_grace_period"].removesuffix("s")),
        "kubernetes": pod["terminationGracePeriodSeconds"],
    }
    assert {name: grant for name, grant in grants.items() if not GRACE < grant <= GRACE + 10} == {}


def test_the_health_file_of_the_unit_lies_where_the_unit_may_write() -> None:
    service = unit()["Service"]
    (file,) = re.findall(r"QUEUE_HEALTH_FILE=(\S+)", (DEPLOY / "queued-tasks.service").read_text())
    assert Path(file).parent == Path("/run") / service["RuntimeDirectory"]


def test_the_ten_seconds_cover_what_a_server_takes_to_leave() -> None:
    assert DRAIN_GRACE + 5 <= 10


def test_the_page_names_the_grace_that_all_files_grant() -> None:
    assert f"All files grant {unit()['Service']['TimeoutStopSec']} s." in (DEPLOY / "README.md").read_text()


def test_the_probes_ask_the_port_on_which_the_server_is_told_to_listen() -> None:
    server = container("Deployment")
    environ = {each["name"]: each.get("value") for each in server["env"]}
    image = dict(re.findall(r"(\w+)=(\S+)", dict(dockerfile())["ENV"]))
    (port,) = server["ports"]
    asked = {server[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")}
    (local,) = re.findall(r"127\.0\.0\.1:(\d+)/", compose()["worker"]["healthcheck"]["test"][-1])
    assert (asked, str(port["containerPort"])) == ({port["name"]}, environ["QUEUE_HEALTH_PORT"])
    assert local == image["QUEUE_HEALTH_PORT"] == environ["QUEUE_HEALTH_PORT"]
    assert image["QUEUE_HEALTH_HOST"] == environ["QUEUE_HEALTH_HOST"] == "0.0.0.0"


async def test_the_probes_ask_for_what_a_server_answers(database: str) -> None:
    server = container("Deployment")
    ready, live = (server[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe"))
    async with running_server(database, health_port=0) as running:
        answers = [await running.probe(path) for path in (ready, live, "/else")]
    assert (ready, live, answers) == ("/readyz", "/livez", [200, 200, 404])


async def exit_code(*arguments: str) -> int:
    """How Python ends with these arguments."""
    running = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.DEVNULL)
    return await running.wait()


async def test_the_health_check_of_a_worker_passes_when_it_takes_tasks(database: str) -> None:
    *_, python, flag, code = compose()["worker"]["healthcheck"]["test"]
    async with running_server(database, health_port=0) as running:
        await running.probe("/readyz")
        found = re.search(r"probes on http://[\d.]+:(\d+)", running.said)
        assert found
        code = re.sub(r"(127\.0\.0\.1):\d+", rf"\1:{found[1]}", code)
        codes = [await exit_code(flag, each) for each in (code, code.replace("readyz", "else"))]
    assert (python, codes) == ("python", [0, 1])


def test_the_image_is_for_no_root_and_takes_signals_itself() -> None:
    last = dockerfile()[max(n for n, (word, _) in enumerate(dockerfile()) if word == "FROM") :]
    users = [rest for word, rest in last if word == "USER"]
    (made,) = re.findall(r"useradd .*--uid (\d+)", " ".join(rest for _, rest in last))
    pods = [documents("kubernetes.yaml")[kind]["spec"]["template"]["spec"] for kind in ("Job", "Deployment")]
    assert users == [made] == [str(pod["securityContext"]["runAsUser"]) for pod in pods][:1]
    assert isinstance(json.loads(dict(last)["CMD"]), list)
    assert "ENTRYPOINT" not in dict(last)


def test_the_final_stage_installs_nothing() -> None:
    stages = [rest for word, rest in dockerfile() if word == "FROM"]
    last = dockerfile()[max(n for n, (word, _) in enumerate(dockerfile()) if word == "FROM") :]
    assert stages[-1].endswith("-slim")
    assert [rest for word, rest in last if word == "RUN" and re.search(r"\b(pip|apt-get|gcc)\b", rest)] == []


def test_the_database_is_migrated_before_anything_of_compose_starts() -> None:
    after = {name: service.get("depends_on", {}) for name, service in compose().items()}
    assert after["migrate"] == {"postgres": {"condition": "service_healthy"}}
    assert after["web"] == after["worker"] == {"migrate": {"condition": "service_completed_successfully"}}


def test_the_selectors_of_the_manifest_find_the_servers_and_not_the_job() -> None:
    found = documents("kubernetes.yaml")
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["Job"]["spec"]["template"]["metadata"]["labels"] != labels
    assert documents("keda.yaml")["ScaledObject"]["spec"]["scaleTargetRef"] == {
        "name": found["Deployment"]["metadata"]["name"]
    }


def query() -> str:
    (trigger,) = documents("keda.yaml")["ScaledObject"]["spec"]["triggers"]
    return str(trigger["metadata"]["query"])


def test_the_page_shows_the_query_of_the_autoscaler() -> None:
    (shown,) = (block.code for block in blocks_of(DEPLOY / "README.md") if block.language == "sql")
    assert " ".join(re.sub(r"--.*", "", shown).split()) == " ".join(query().split()) + ";"


def test_the_query_counts_as_many_slots_as_the_manifest_gives_a_server() -> None:
    environ = {each["name"]: each.get("value") for each in container("Deployment")["env"]}
    workers = int(environ["QUEUE_MAX_WORKERS"])
    slots = workers * Settings().concurrency
    sync, others, most = map(float, re.findall(r"(?:then|else|backlog\() ?([\d.]+)", query()))
    servers = documents("keda.yaml")["ScaledObject"]["spec"]["maxReplicaCount"]
    assert (sync, others, most) == (workers, slots, servers * slots)


async def test_the_query_asks_for_as_many_servers_as_the_tasks_fill(database: str) -> None:
    async with AsyncExitStack() as stack:
        store = await Store.open(database, stack)
        await store.add(100)
        await store.claim(await store.server(), 40)
        await store.add(50, channel="mail")
        await store.add(3, executor=Executor.SYNC)
        asked = await store.value(query())
    assert float(asked) == (100 + 50) / 200 + 3 / 2


async def test_the_columns_of_the_backlog_are_all_there(database: str) -> None:
    written = [re.findall(r"`(\w+)`", row[0]) for row in table("deploy/README.md", "column of `backlog`")]
    async with connected(database) as connection:
        statement = await connection.prepare("select * from queued_tasks.backlog()")
        assert [name for names in written for name in names] == [each.name for each in statement.get_attributes()]


async def test_without_tasks_the_query_asks_for_none(database: str) -> None:
    async with connected(database) as connection:
        assert await connection.fetchval(query()) == 0


async def test_the_role_of_a_dashboard_may_run_the_query(database: str) -> None:
    user = f"user_{uuid4().hex}"
    async with connected(database) as owner:
        await owner.execute(roles_sql())
        await owner.execute(f"create role {user} login; grant queued_tasks_dashboard to {user}")
        try:
            async with connected(re.sub(r"//[^@/]*@", f"//{user}@", database, count=1)) as connection:
                assert await connection.fetchval(query()) == 0
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute("delete from queued_tasks.bundle")
        finally:
            await owner.execute(f"drop role {user}")


@pytest.mark.skipif(SYSTEMD is None and "CI" not in os.environ, reason="needs systemd-analyze: apt-get install systemd")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "queued-tasks.service").read_text()
    program = shlex.split(unit()["Service"]["ExecStart"])[0]
    path = tmp_path / "queued-tasks.service"
    path.write_text(text.replace(program, sys.executable))
    ran = subprocess.run([str(SYSTEMD), "verify", "--man=no", str(path)], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda path: path.name)
def test_every_file_that_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
