-- the server itself: version, durability, room for connections, its clock
select current_setting('server_version') as version,
       current_setting('server_version_num')::integer as number,
       current_user as "user",
       pg_is_in_recovery() as standby,
       current_setting('autovacuum')::boolean as autovacuum,
       current_setting('fsync')::boolean as fsync,
       current_setting('synchronous_commit') as synchronous_commit,
       (select count(*) from pg_stat_activity a where a.backend_type = 'client backend') as connections,
       current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer as room,
       extract(epoch from clock_timestamp())::float8 as clock
