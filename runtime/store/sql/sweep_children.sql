-- $1 limit: lets children go whose parents have all ended, should a crash have left any; how many it looked at
select queued_tasks.sweep_children($1)
