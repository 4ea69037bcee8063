-- $1 channels, $2 priorities, $3 sync: lanes that don't exist yet are made; read them with lanes.sql. A conflict takes a
-- number, too, and each process that adds tasks comes here: so what is there is not inserted.
insert into queued_tasks.lane (channel, priority, sync, again)
select u.channel, u.priority, u.sync, false
  from unnest($1::text[], $2::smallint[], $3::boolean[]) u (channel, priority, sync)
 where not exists (select from queued_tasks.lane l
                    where l.channel = u.channel and l.priority = u.priority and l.sync = u.sync and not l.again
                      and l.function is null)
 order by u.channel, u.priority, u.sync
on conflict do nothing
