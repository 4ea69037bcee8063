-- $1 seconds: what has held back vacuum for longer, the oldest first
select a.pid::text as id, 'session' as kind, a.usename as "user", a.application_name as application, a.state as doing,
       extract(epoch from clock_timestamp() - a.xact_start)::float8 as age
  from pg_stat_activity a
 where a.xact_start < clock_timestamp() - $1::float8 * interval '1 second' and a.datname = current_database()
   and a.backend_type = 'client backend'
union all
select x.gid, 'prepared', x.owner, '', '', extract(epoch from clock_timestamp() - x.prepared)::float8
  from pg_prepared_xacts x
 where x.prepared < clock_timestamp() - $1::float8 * interval '1 second' and x.database = current_database()
union all
select s.slot_name, 'slot', '', '', '', null
  from pg_replication_slots s
 where s.xmin is not null and not s.active
 order by age desc nulls last
