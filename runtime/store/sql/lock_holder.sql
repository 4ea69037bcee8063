-- the oldest of the other transactions that hold locks on tables of the schema
select a.pid, a.application_name as application, a.state,
       extract(epoch from clock_timestamp() - a.xact_start)::float8 as seconds
  from pg_locks l
  join pg_class c on c.oid = l.relation
  join pg_stat_activity a on a.pid = l.pid
 where c.relnamespace = 'queued_tasks'::regnamespace
   and l.database = (select d.oid from pg_database d where d.datname = current_database())
   and l.granted
   and l.pid <> pg_backend_pid()
 order by a.xact_start
 limit 1
