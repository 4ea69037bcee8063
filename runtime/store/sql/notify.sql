-- $1 topics, $2 payloads. Nothing is lost with it, so its commit does not wait for the disk.
select set_config('synchronous_commit', 'off', true), pg_notify(u.topic, u.payload)
  from unnest($1::text[], $2::text[]) u (topic, payload)
