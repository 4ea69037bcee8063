-- $1 task, $2 after this line, $3 limit
select g.id, g.task_id, g.attempt, g.at, g.level, g.logger, g.message, g.exception
  from queued_tasks.log g
 where g.task_id = $1 and g.id > coalesce($2::bigint, 0)
 order by g.id
 limit $3
