-- $1 lock key: whether no session holds it. The transaction's end gives it back at once.
select pg_try_advisory_xact_lock($1)
