-- $1 server, $2 lease, $3 lanes, $4 their ranks, $5 their low-waters, $6 limit (tasks)
select lane, seq, id, attempt, failures, timeouts, crashes, function, name, executor, args, kwargs, context, timeout,
       max_retries, flagged, expired, signature, sealed, parents
  from queued_tasks.claim($1, $2, $3::integer[], $4::integer[], $5::bigint[], $6)
