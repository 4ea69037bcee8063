select (select count(*) from queued_tasks.ready) + (select count(*) from queued_tasks.delayed)
