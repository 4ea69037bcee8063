-- $1 name, $2 channel (null: any): removes a batch of tasks that are enqueued or waiting; how many
select queued_tasks.clear_tasks($1, $2, 1000)
