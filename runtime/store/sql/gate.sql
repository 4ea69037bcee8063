-- $1 channel
select g.channel, g.cap, g.per_server, g.key_cap, g.rate_count, g.rate_period, g.paused
  from queued_tasks.gate g where g.channel = $1
