-- $1 seconds of silence after which a server counts as lost
-- How the whole is: a task's wait begins when it is due, free of its parents, and back from its last attempt. What was
-- cancelled or removed in line is passed over, up to a thousand of a line: a paused channel may hold any number of them.
with alive as (
    select h.state, h.slots, h.busy
      from queued_tasks.heartbeat h
     where h.beat_at > clock_timestamp() - $1::float8 * interval '1 second'
), front as (
    select y.id
      from queued_tasks.lane l
     cross join lateral (
           select h.id
             from (select u.id
                     from (select r.ids from queued_tasks.bundle r where r.lane = l.id order by r.seq limit 1000) b
                    cross join lateral unnest(b.ids) u (id) limit 1000) h
            where exists (select from queued_tasks.task t where t.id = h.id offset 0)
              and not exists (select from queued_tasks.result x where x.id = h.id offset 0)
            limit 1) y
     where l.function is null
), since as (
    select greatest(t.created_at, t.run_at,
                    (select greatest(max(a.ended_at), max(a.next_at) filter (where a.next_at < 'infinity'))
                       from queued_tasks.attempt a where a.id = t.id),
                    (select max(r.ended_at)
                       from queued_tasks.dependency d join queued_tasks.result r on r.id = d.parent
                      where d.child = t.id)) as at
      from front f join queued_tasks.task t on t.id = f.id
    union all
    (select d.run_at from queued_tasks.delayed d order by d.run_at limit 1)
)
select current_setting('server_version') as version,
       (select max(m.version) from queued_tasks.migration m) as migration,
       (select count(*) from alive) as servers,
       (select count(*) from alive v where v.state = 'running') as claiming,
       (select coalesce(sum(greatest(v.slots - v.busy, 0)), 0) from alive v where v.state = 'running') as free,
       (select extract(epoch from clock_timestamp() - min(s.at))::float8
          from since s where s.at <= clock_timestamp()) as oldest_waiting
