-- $1 seconds that servers have for what they do on their own, $2 most to count, $3 most to name
-- Tasks that stand where nothing will move them, each with some of its ids.
with recursive lines (lane) as (
    select min(r.lane) from queued_tasks.bundle r
    union all
    select (select min(r.lane) from queued_tasks.bundle r where r.lane > l.lane) from lines l where l.lane is not null
), homeless as materialized (
    select r.id
      from lines l join queued_tasks.ready r on r.lane = l.lane
     where not exists (select from queued_tasks.lane n where n.id = l.lane)
     limit $2
), parentless as materialized (
    select distinct d.child as id
      from queued_tasks.dependency d
     where not d.released
       and not exists (select from queued_tasks.result x where x.id = d.child)
       and exists (select from queued_tasks.task t where t.id = d.child)
       and not exists (select from queued_tasks.dependency o
                         join queued_tasks.task q on q.id = o.parent
                         left join queued_tasks.result e on e.id = o.parent
                        where o.child = d.child and (e.id is null or e.ended_at > now() - $1::float8 * interval '1 second'))
     limit $2
), overdue as materialized (
    select d.id from queued_tasks.delayed d
     where d.run_at < clock_timestamp() - $1::float8 * interval '1 second' order by d.run_at limit $2
), abandoned as materialized (
    select u.id from queued_tasks.lease l, unnest(l.ids) u (id)
     where l.claimed_at < now() - $1::float8 * interval '1 second'
       and not exists (select from queued_tasks.heartbeat h where h.server = l.server)
     limit $2
), found as (
    select 'homeless' as kind, id from homeless
    union all select 'parentless', id from parentless
    union all select 'overdue', id from overdue
    union all select 'abandoned', id from abandoned
)
select f.kind, count(*) as count, (array_agg(f.id order by f.id))[:$3::integer] as ids from found f group by f.kind order by 1
