-- $1 dead rows: tables with more of these, and more dead ones than live ones
select c.relname as name, s.n_live_tup as live, s.n_dead_tup as dead, greatest(s.last_vacuum, s.last_autovacuum) as vacuumed_at
  from pg_stat_user_tables s
  join pg_class c on c.oid = s.relid
 where c.relnamespace = 'queued_tasks'::regnamespace and s.n_dead_tup > greatest($1::bigint, s.n_live_tup)
 order by s.n_dead_tup desc
