-- $1 lock key, held for as long as the session lives; $2 the process that the client was told it talks to, which behind
-- a pooler is not the one that does the work: a lock that is taken there outlives its client
select case when pg_backend_pid() = $2 then pg_try_advisory_lock($1) else false end
