-- $1 ids, $2 reason
select ended, asked, told from queued_tasks.cancel_tasks($1::uuid[], $2)
