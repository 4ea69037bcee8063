-- $1 ids: how far these tasks are, for whoever waits for them
select q.id, t.id is not null as known, r.state::text, r.result, r.exception_name, r.exception_message,
       r.exception_traceback, s.id is not null as stopped
  from unnest($1::uuid[]) q (id)
  left join queued_tasks.task t on t.id = q.id
  left join queued_tasks.result r on r.id = q.id
  left join queued_tasks.stopped s on s.id = q.id
