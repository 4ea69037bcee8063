-- who waits for tasks that have ended or are gone: he was told, or has left
delete from queued_tasks.waiter w
 where exists (select from queued_tasks.result r where r.id = w.task_id)
    or not exists (select from queued_tasks.task t where t.id = w.task_id)
