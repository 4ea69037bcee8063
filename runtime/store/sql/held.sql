-- $1 server: the attempts in its leases that have not ended, of tasks that were not removed since
select l.id as lease, u.id, u.attempt
  from queued_tasks.lease l
 cross join lateral unnest(l.ids, l.attempts) u (id, attempt)
 where l.server = $1
   and not exists (select from queued_tasks.result r where r.id = u.id)
   and not exists (select from queued_tasks.attempt a where a.id = u.id and a.attempt = u.attempt)
   and exists (select from queued_tasks.task t where t.id = u.id offset 0)
