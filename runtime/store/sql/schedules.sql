-- $1 names, null for all that are in use. `after`: how far each has come. One that nobody has declared for a day, while
-- others were, is in use no more.
select s.name, s.cron, s.timezone, s.paused, greatest(s.since, f.due_at) as after, clock_timestamp() as now,
       f.due_at as last_due_at, f.reason as last_reason
  from queued_tasks.schedule s
  left join lateral (select * from queued_tasks.schedule_fire x
                      where x.name = s.name and x.due_at <= clock_timestamp() order by x.due_at desc limit 1) f on true
 where case when $1::text[] is null then s.seen_at > (select max(o.seen_at) - interval '1 day' from queued_tasks.schedule o)
            else s.name = any ($1) end
 order by s.name
