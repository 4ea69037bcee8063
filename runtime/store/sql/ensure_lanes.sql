-- $1 channels, $2 priorities: lanes that don't exist yet are made; read them with lanes.sql
insert into queued_tasks.lane (channel, priority, again)
select u.channel, u.priority, false from unnest($1::text[], $2::smallint[]) u (channel, priority)
 order by u.channel, u.priority
on conflict do nothing
