-- $1 ids, $2 topic that is told when one of them ends
insert into queued_tasks.waiter (task_id, topic)
select u.id, $2 from unnest($1::uuid[]) u (id) order by u.id
on conflict do nothing
