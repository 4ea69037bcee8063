-- $1 id, $2 most to count
-- Where a task stands and what is in its way, beyond what task_view shows; no row when there is no task.
with line as materialized (
    select r.lane, r.seq from queued_tasks.ready r where r.id = $1 limit 1
), run as materialized (
    select r.server, extract(epoch from clock_timestamp() - r.claimed_at)::float8 as runs_for
      from queued_tasks.running r where r.id = $1 limit 1
), last as materialized (
    select a.outcome, extract(epoch from clock_timestamp() - a.ended_at)::float8 as ended_ago
      from queued_tasks.attempt a where a.id = $1 order by a.attempt desc limit 1
)
select coalesce(t.key, '') as key, t.executor = 1 as sync, coalesce(t.expires_at <= clock_timestamp(), false) as expired,
       (select extract(epoch from d.run_at - clock_timestamp())::float8
          from queued_tasks.delayed d where d.id = $1 and d.run_at < 'infinity' limit 1) as due_in,
       exists (select from queued_tasks.delayed d where d.id = $1) as delayed,
       exists (select from queued_tasks.inbox i where i.id = $1 and not i.cancel) as posted,
       exists (select from line l) as lined,
       (select count(*) from (select from line l
                                join queued_tasks.bundle b on b.lane = l.lane and b.seq < l.seq
                               cross join lateral unnest(b.ids) with ordinality u (id, place)
                               where b.seq + u.place - 1 < l.seq
                                 and not exists (select from queued_tasks.result r where r.id = u.id)
                               limit $2) a) as ahead,
       (select r.server from run r) as server_id,
       (select r.runs_for from run r) as runs_for,
       (select extract(epoch from clock_timestamp() - max(g.at))::float8 from queued_tasks.log g where g.task_id = $1) as said_ago,
       (select i.kind from queued_tasks.interrupt i where i.id = $1) as wish,
       (select extract(epoch from clock_timestamp() - i.requested_at)::float8
          from queued_tasks.interrupt i where i.id = $1) as wished_ago,
       (select l.outcome from last l) as last_outcome,
       (select l.ended_ago from last l) as last_ended_ago,
       (select extract(epoch from clock_timestamp() - s.stopped_at)::float8
          from queued_tasks.stopped s where s.id = $1) as stopped_ago,
       (select r.id from unnest(coalesce(t.stand_ins, t.parents)) p (id) join queued_tasks.result r on r.id = p.id
         where r.state <> 'done' limit 1) as bad_parent,
       g.cap, coalesce(g.per_server, false) as per_server, g.key_cap, g.rate_count, g.rate_period,
       coalesce(g.paused, false) as paused,
       (select count(*) from queued_tasks.token k where k.channel = t.channel) as running_in_channel,
       (select count(*) from queued_tasks.token k where k.channel = t.channel and k.key = coalesce(t.key, '')) as running_with_key,
       array(select k.server from queued_tasks.token k
              where k.channel = t.channel and g.per_server
              group by k.server having count(*) >= g.cap) as full_servers,
       (select greatest(0, (1 - v.level) * g.rate_period / g.rate_count)
          from (select queued_tasks.rate_room(g, s.level, s.at) as level
                  from queued_tasks.gate_state s where s.channel = t.channel order by s.version desc limit 1) v) as rate_in,
       array(select s.server from queued_tasks.stance s where s.function = t.function) as declined_by,
       (select s.reason from queued_tasks.stance s where s.function = t.function order by s.at desc limit 1) as declined_because
  from queued_tasks.task t
  left join queued_tasks.gate g on g.channel = t.channel
 where t.id = $1
