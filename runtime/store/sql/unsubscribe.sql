-- $1 ids, $2 topic
delete from queued_tasks.waiter w where w.task_id = any ($1::uuid[]) and w.topic = $2
