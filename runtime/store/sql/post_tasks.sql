-- $1 the tasks, a JSON array as text; winners by losers, as JSON
select queued_tasks.post_tasks($1)
