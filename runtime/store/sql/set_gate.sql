-- $1 channel, $2 cap, $3 cap is per server, $4 cap per key, $5 rate, $6 in so many seconds, $7 paused, $8 only if it has none
select queued_tasks.set_gate($1, $2, $3, $4, $5, $6::float8, $7, $8)
