-- $1 id, $2 limit: the parents that this task waits for, and how many they are
with open as (
    select d.parent
      from queued_tasks.dependency d
     where d.child = $1 and not d.released
       and exists (select from queued_tasks.task t where t.id = d.parent)
       and not exists (select from queued_tasks.result r where r.id = d.parent)
)
select v.id, v.name, v.state::text, (select count(*) from open) as total
  from (select o.parent from open o order by o.parent limit $2) p
  join queued_tasks.task_view v on v.id = p.parent
 order by v.id
