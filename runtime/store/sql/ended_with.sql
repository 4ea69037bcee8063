-- $1 id: the descendants that ended without having run because this task did
with recursive family (id) as (
    select d.child from queued_tasks.dependency d where d.parent = $1
     and exists (select from queued_tasks.result r
                  where r.id = d.child and r.attempt = 0 and r.exception_name = 'ParentTaskFailed')
    union
    select d.child from family f join queued_tasks.dependency d on d.parent = f.id
     where exists (select from queued_tasks.result r
                    where r.id = d.child and r.attempt = 0 and r.exception_name = 'ParentTaskFailed')
)
select f.id from family f
