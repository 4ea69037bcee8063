-- enqueued includes what is not due yet, not the cancelled ones that still have a place in a line; waiting are tasks with an open parent
select (select count(*) from queued_tasks.ready y
         where not exists (select from queued_tasks.result r where r.id = y.id and r.state = 'cancelled'))
       + (select count(*) from queued_tasks.delayed)
       + (select count(*) from queued_tasks.inbox i
           where not i.cancel
             and not exists (select from queued_tasks.dependency d where d.child = i.id)
             and not exists (select from queued_tasks.result r where r.id = i.id)) as enqueued,
       (select count(distinct d.child) from queued_tasks.dependency d
         where not d.released and not exists (select from queued_tasks.result r where r.id = d.child)) as waiting,
       (select count(*) from queued_tasks.running) as doing,
       (select count(*) from queued_tasks.result) - (select count(*) from queued_tasks.result r where r.state <> 'done') as done,
       (select count(*) from queued_tasks.result r where r.state = 'failed') as failed,
       (select count(*) from queued_tasks.result r where r.state = 'cancelled') as cancelled,
       (select count(*) from queued_tasks.stopped) as stopped
