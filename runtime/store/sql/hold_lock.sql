-- $1 lock key, held for as long as the session lives
select pg_try_advisory_lock($1)
