-- $1 channels, $2 priorities, $3 sync: lanes that don't exist yet are made; read them with lanes.sql
insert into queued_tasks.lane (channel, priority, sync, again)
select u.channel, u.priority, u.sync, false
  from unnest($1::text[], $2::smallint[], $3::boolean[]) u (channel, priority, sync)
 order by u.channel, u.priority, u.sync
on conflict do nothing
