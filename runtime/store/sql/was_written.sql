-- $1 id: whether this task is there, or was and has been removed
select exists (select from queued_tasks.task t where t.id = $1)
    or exists (select from queued_tasks.tombstone s where s.id = $1)
