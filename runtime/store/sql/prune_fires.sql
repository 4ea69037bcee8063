-- $1 retention in seconds, $2 limit: removes old fires but for the newest of each schedule and those whose task is kept
delete from queued_tasks.schedule_fire f
 using (select x.name, x.due_at
          from queued_tasks.schedule_fire x
         where x.fired_at < clock_timestamp() - $1::float8 * interval '1 second'
           and exists (select from queued_tasks.schedule_fire y where y.name = x.name and y.due_at > x.due_at)
           and not exists (select from queued_tasks.task t where t.id = x.task)
         limit $2) old
 where f.name = old.name and f.due_at = old.due_at
returning 1
