-- $1 servers, $2 their session locks: those of them whose lock no session holds, and when they last beat. Shared, so that
-- peers who look at the same moment don't take each other for the holder; given back at once, with the transaction.
select h.server, h.beat_at
  from unnest($1::uuid[], $2::bigint[]) u (server, key)
 cross join lateral (select pg_try_advisory_xact_lock_shared(u.key) as free offset 0) l
 cross join lateral (
       select k.server, k.beat_at from queued_tasks.heartbeat k where l.free and k.server = u.server and k.lock_key = u.key) h
