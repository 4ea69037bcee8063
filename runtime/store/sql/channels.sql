-- every channel that has limits or has ever had a task: what runs in it, and what could run but for limits and slots. What
-- was removed in line is only looked for where nothing is claimed: elsewhere the next claim clears it away.
with busy as (
    select t.channel, count(*) as running
      from queued_tasks.running r join queued_tasks.task t on t.id = r.id
     group by t.channel
), lined as (
    select l.channel, count(y.id) as waiting
      from queued_tasks.lane l
      left join queued_tasks.ready y
        on y.lane = l.id and not exists (select from queued_tasks.result r where r.id = y.id)
     group by l.channel
), removed as (
    select l.channel, sum(y.count) as count
      from queued_tasks.gate g
      join queued_tasks.lane l on l.channel = g.channel
     cross join lateral (
           select count(*)
             from (select u.id from queued_tasks.bundle r cross join lateral unnest(r.ids) u (id) where r.lane = l.id offset 0) h
            where not exists (select from queued_tasks.task t where t.id = h.id offset 0)
              and not exists (select from queued_tasks.result x where x.id = h.id offset 0)) y
     where g.paused or g.cap = 0
     group by l.channel
)
select coalesce(n.channel, g.channel) as channel, g.cap, coalesce(g.per_server, false) as per_server, g.key_cap,
       g.rate_count, g.rate_period, coalesce(g.paused, false) as paused,
       coalesce(b.running, 0) as running,
       (coalesce(n.waiting, 0) - coalesce(o.count, 0))::bigint as waiting
  from lined n
  full join queued_tasks.gate g on g.channel = n.channel
  left join removed o on o.channel = n.channel
  left join busy b on b.channel = coalesce(n.channel, g.channel)
 order by 1
