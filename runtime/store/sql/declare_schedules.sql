-- $1 names, $2 expressions, $3 time zones, $4 functions, $5 newly declared; else said again, by a server that has known them
-- for long
-- The newest declaration holds. An older server takes over when nobody has confirmed that one for a quarter of an hour:
-- then what is due since it was confirmed last has been missed. With a newer one nothing before now is due.
insert into queued_tasks.schedule as s (name, cron, timezone, function)
select u.name, u.cron, u.timezone, u.function
  from unnest($1::text[], $2::text[], $3::text[], $4::text[]) u (name, cron, timezone, function)
 order by u.name
on conflict (name) do update
   set cron = excluded.cron, timezone = excluded.timezone, function = excluded.function, seen_at = clock_timestamp(),
       since = case when (s.cron, s.timezone) = (excluded.cron, excluded.timezone) then s.since
                    when $5::boolean then clock_timestamp() else greatest(s.since, s.seen_at) end
 where (s.cron, s.timezone, s.function) = (excluded.cron, excluded.timezone, excluded.function)
       and s.seen_at < clock_timestamp() - interval '1 minute'
    or (s.cron, s.timezone, s.function) <> (excluded.cron, excluded.timezone, excluded.function)
       and ($5::boolean or s.seen_at < clock_timestamp() - interval '15 minutes')
