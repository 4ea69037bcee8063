-- $1 name, $2 paused. What was due meanwhile is not missed when it goes on.
update queued_tasks.schedule s
   set paused = $2, since = case when s.paused and not $2 then clock_timestamp() else s.since end
 where s.name = $1
returning s.name
