"""What the tables hold after calls of any kind, whether that is sound, and whether it is what the model holds."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tests.queue_model import Posted, QueueModel

SNAPSHOT = """
with wrong as (
    select 'stands in ' || count(p.place) || ' places: ' || coalesce(string_agg(p.place, ', '), 'none') as what, t.id
      from queued_tasks.task t
      left join (
           select y.id, 'a line' as place from queued_tasks.ready y
           union all select d.id, 'the delayed' from queued_tasks.delayed d
           union all select r.id, 'a lease' from queued_tasks.running r
           union all select s.id, 'the stopped' from queued_tasks.stopped s
           union all
           select d.child, 'the waiting'
             from queued_tasks.dependency d
            where not d.released
            group by d.child
           having bool_or(exists (select from queued_tasks.task t where t.id = d.parent)
                          and not exists (select from queued_tasks.result r where r.id = d.parent))
           union all
           select i.id, 'the inbox'
             from queued_tasks.inbox i
             left join queued_tasks.dependency d on d.child = i.id
            where not i.cancel
            group by i.id
           having bool_and(d.released) is not true
              and not bool_or(exists (select from queued_tasks.task t where t.id = d.parent)
                              and not exists (select from queued_tasks.result r where r.id = d.parent))
           ) p on p.id = t.id
     where not exists (select from queued_tasks.result r where r.id = t.id)
     group by t.id having count(p.place) <> 1
    union all
    select 'may run before its parent ' || d.parent, d.child
      from queued_tasks.dependency d
      join queued_tasks.task t on t.id = d.parent
     where not exists (select from queued_tasks.result r where r.id in (d.parent, d.child))
       and d.child in (select y.id from queued_tasks.ready y union select l.id from queued_tasks.delayed l
                       union select r.id from queued_tasks.running r union select s.id from queued_tasks.stopped s)
    union all
    select 'keeps a key though it has ended', u.id
      from queued_tasks.unique_task u
     where not exists (select from queued_tasks.task t where t.id = u.id)
        or exists (select from queued_tasks.result r where r.id = u.id)
    union all
    select 'left something behind in ' || x.place, x.id
      from (select r.id, 'result' as place from queued_tasks.result r
            union all select a.id, 'attempt' from queued_tasks.attempt a
            union all select d.id, 'delayed' from queued_tasks.delayed d
            union all select s.id, 'stopped' from queued_tasks.stopped s
            union all select i.id, 'interrupt' from queued_tasks.interrupt i
            union all select d.child, 'dependency' from queued_tasks.dependency d
            union all select c.id, 'context' from queued_tasks.context c
            union all select g.task_id, 'log' from queued_tasks.log g) x
     where not exists (select from queued_tasks.task t where t.id = x.id)
)
select json_build_object(
    'wrong', (select json_agg(json_build_array(w.what, w.id)) from wrong w),
    'tasks', (select json_agg(json_build_array(v.id, v.state, v.attempt)) from queued_tasks.task_view v),
    'ready', (select json_agg(json_build_array(l.id, l.channel, l.priority, l.sync, l.again, y.seq, y.id, y.attempt)
                              order by l.id, y.seq)
                from queued_tasks.ready y join queued_tasks.lane l on l.id = y.lane),
    'delayed', (select json_agg(json_build_array(d.id, d.attempt)) from queued_tasks.delayed d),
    'keys', (select json_agg(json_build_array(u.key, u.id)) from queued_tasks.unique_task u),
    'inbox', (select json_agg(json_build_array(i.id, i.unique_key, i.cancel) order by i.seq) from queued_tasks.inbox i),
    'wishes', (select json_agg(json_build_array(i.id, i.kind)) from queued_tasks.interrupt i
                where not exists (select from queued_tasks.result r where r.id = i.id)),
    'gates', (select json_agg(json_build_array(g.channel, g.cap, g.per_server, g.key_cap, g.paused))
                from queued_tasks.gate g),
    'turnless', (select json_agg(b.ids[1])
                   from queued_tasks.bundle b
                   join queued_tasks.lane l on l.id = b.lane
                   join queued_tasks.gate g on g.channel = l.channel and g.key_cap is not null
                  where b.key is not null
                    and not exists (select from queued_tasks.turn t
                                     where t.lane = b.lane and t.key = b.key and t.low < b.seq)
                    and not exists (select from queued_tasks.newcomer n
                                     where n.lane = b.lane and n.key = b.key and n.first <= b.seq)),
    'tokens', (select json_agg(k.id) from queued_tasks.token k),
    'held', (select json_agg(l.id) from queued_tasks.lease l),
    'leases', (select json_agg(json_build_array(r.id, r.server)) from queued_tasks.running r)
)::text
"""
LATER = """
update queued_tasks.task set run_at = run_at - interval '1 day' where run_at is not null;
update queued_tasks.delayed set run_at = run_at - interval '1 day';
update queued_tasks.attempt set next_at = next_at - interval '1 day' where next_at is not null
"""
EMPTY = """
delete from queued_tasks.task; delete from queued_tasks.bundle; delete from queued_tasks.delayed;
delete from queued_tasks.lease; delete from queued_tasks.attempt; delete from queued_tasks.result;
delete from queued_tasks.stopped; delete from queued_tasks.dependency; delete from queued_tasks.unique_task;
delete from queued_tasks.tombstone; delete from queued_tasks.context; delete from queued_tasks.log;
delete from queued_tasks.gate; delete from queued_tasks.gate_state; delete from queued_tasks.token;
delete from queued_tasks.lifted; delete from queued_tasks.turn; delete from queued_tasks.newcomer;
delete from queued_tasks.interrupt; delete from queued_tasks.inbox; delete from queued_tasks.heartbeat;
delete from queued_tasks.server
"""


def take_turns(model: QueueModel, found: dict[str, Any]) -> None:
    """Those in line, and in the inbox, came in the order in which they stand there."""
    model.inbox = posted_in(found)
    for row in sorted(found["ready"], key=lambda row: int(row[5])):
        if in_line(model, row[6]):
            model.tasks[UUID(row[6])].turn = model.turns
            model.turns += 1


def compare(model: QueueModel, found: dict[str, Any], *, ordered: bool = True) -> None:
    """Fail unless the tables hold what the model holds. `ordered`: who came first stands ahead."""
    tasks = model.tasks.values()
    assert not found["wrong"], found["wrong"]
    same(
        "tasks",
        {UUID(id): (state, attempt) for id, state, attempt in found["tasks"]},
        {task.id: (task.state, task.attempt) for task in tasks},
    )
    lined = [(tuple(lane), UUID(id), attempt) for _, *lane, _, id, attempt in found["ready"] if in_line(model, id)]
    same("lines", sorted(lined), sorted((task.lane, task.id, task.next) for task in tasks if task.place == "ready"))
    for lane in {lane for lane, _, _ in lined} if ordered else ():
        turns = [model.tasks[id].turn for where, id, _ in lined if where == lane]
        same("turns", turns, sorted(turns))
    same(
        "delayed",
        sorted((UUID(id), attempt) for id, attempt in found["delayed"]),
        sorted((task.id, task.next) for task in tasks if task.place == "delayed"),
    )
    same("keys", {key: UUID(id) for key, id in found["keys"]}, model.keys)
    same("holders of keys", {*model.keys.values()}, {task.id for task in model.unfinished() if model.has_key(task)})
    posted = posted_in(found)
    same("inbox", posted if ordered else {*posted}, model.inbox if ordered else {*model.inbox})
    same("wishes", {UUID(id): kind for id, kind in found["wishes"]}, model.wishes)
    same(
        "gates",
        {channel: (*limits,) for channel, *limits in found["gates"]},
        {it.channel: (it.cap, it.per_server, it.key_cap, it.paused) for it in model.gates.values()},
    )
    same("tokens", {UUID(id) for id in found["tokens"]}, model.counted())
    same("held leases", {UUID(id) for id in found["held"]}, {*model.leases})
    same(
        "leases",
        sorted((UUID(id), UUID(server)) for id, server in found["leases"]),
        sorted((task.id, model.leases[task.lease].server) for task in tasks if task.lease),
    )


def posted_in(found: dict[str, Any]) -> list[Posted]:
    return [Posted(UUID(id), key, cancel) for id, key, cancel in found["inbox"]]


def in_line(model: QueueModel, id: str) -> bool:
    """What was cancelled, and perhaps removed, keeps its place in line until a claim comes across it."""
    task = model.tasks.get(UUID(id))
    return task is not None and not task.end


def same(what: str, found: Any, expected: Any) -> None:
    if found != expected and isinstance(found, dict):
        differ = found.keys() | expected.keys()
        found, expected = (
            {key: it.get(key) for key in differ if found.get(key) != expected.get(key)} for it in (found, expected)
        )
    assert found == expected, f"{what}: there are {found}, and should be {expected}"
