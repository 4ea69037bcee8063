-- $1 names, null for all that are in use. `after`: how far each has come. One that nobody has declared for a day, while
-- others were, is in use no more. What lies later than now was written by a clock that was ahead: see set_back_schedules.sql.
select s.name, s.cron, s.timezone, s.function, s.paused,
       greatest(case when s.since > clock_timestamp() then clock_timestamp() - interval '1 minute' else s.since end, f.due_at)
           as after,
       clock_timestamp() as now,
       f.due_at as last_due_at, f.reason as last_reason
  from queued_tasks.schedule s
  left join lateral (select * from queued_tasks.schedule_fire x
                      where x.name = s.name and x.due_at <= clock_timestamp() order by x.due_at desc limit 1) f on true
 where case when $1::text[] is null
            then s.seen_at > (select max(least(o.seen_at, clock_timestamp())) - interval '1 day' from queued_tasks.schedule o)
            else s.name = any ($1) end
 order by s.name
