-- $1 retention in seconds, $2 limit: removes tasks that ended longer ago, oldest first; how many
select queued_tasks.prune($1, $2)
