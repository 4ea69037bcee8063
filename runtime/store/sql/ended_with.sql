-- $1 id: the descendants that ended without having run because this task did
-- offset 0 keeps each look a look: as long as few results are known to be of this kind PostgreSQL compares all with all
with recursive family (id) as (
    select $1::uuid
    union
    select d.child
      from family f
     cross join lateral (select d.child from queued_tasks.dependency d where d.parent = f.id offset 0) d
     cross join lateral (
           select from queued_tasks.result r
            where r.id = d.child and r.attempt = 0 and r.exception_name = 'ParentTaskFailed' offset 0) r
)
select f.id from family f where f.id <> $1
