-- $1 ids, $2 topic that is told when one of them ends, and whatever happens to it before
insert into queued_tasks.waiter (task_id, topic, progress)
select u.id, $2, true from unnest($1::uuid[]) u (id) order by u.id
on conflict (task_id, topic) do update set progress = true where not waiter.progress
