-- $1 how many: tasks that failed lately, the last first, among the newest that did
select r.id, coalesce(t.name, split_part(t.function, ':', 2)) as name, t.channel, r.attempt, r.exception_name,
       r.exception_message, extract(epoch from clock_timestamp() - r.ended_at)::float8 as ended_ago
  from (select * from queued_tasks.result x where x.state = 'failed' and x.state <> 'done' order by x.id desc limit 500) r
  join queued_tasks.task t on t.id = r.id
 order by r.ended_at desc, r.id desc
 limit $1
