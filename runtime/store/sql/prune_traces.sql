-- tombstones that no repeated write can need any more, and servers that nobody asks about
with stones as (
    delete from queued_tasks.tombstone s where s.deleted_at < now() - interval '1 hour'
), settled_wishes as (
    delete from queued_tasks.interrupt i
     where exists (select from queued_tasks.result r where r.id = i.id)
        or not exists (select from queued_tasks.task t where t.id = i.id)
)
delete from queued_tasks.server s
 where s.ended_at < now() - $1::float8 * interval '1 second'
