-- $1 how many tasks may end: those that no server may run
select ended, lined from queued_tasks.end_refused(null, null, $1)
