-- $1 how many places of each lane are looked at: lanes of functions that are empty, and what was said of such functions
select queued_tasks.prune_functions($1)
