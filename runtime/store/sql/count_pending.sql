-- A cancelled task may still have a place in a line: it is left to the claim that comes across it.
select (select count(*) from queued_tasks.ready y
         where not exists (select from queued_tasks.result r where r.id = y.id and r.state = 'cancelled'))
     + (select count(*) from queued_tasks.delayed)
     + (select count(*) from queued_tasks.inbox i
         where not i.cancel
           and not exists (select from queued_tasks.dependency d where d.child = i.id)
           and not exists (select from queued_tasks.result r where r.id = i.id))
