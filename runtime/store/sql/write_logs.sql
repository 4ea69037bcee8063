-- $1 server, then a row each: $2 lease, $3 task, $4 attempt, $5 seconds ago, $6 level, $7 logger, $8 message, $9 exception;
-- $10: lines of attempts that this server has recorded the end of are accepted, too
with held as (
    select l.id from queued_tasks.lease l where l.id = any ($2::uuid[]) and l.server = $1 for share
)
insert into queued_tasks.log (task_id, attempt, at, level, logger, message, exception)
select u.id, u.attempt, clock_timestamp() - u.ago * interval '1 second', u.level, u.logger, u.message, u.exception
  from unnest($2::uuid[], $3::uuid[], $4::integer[], $5::float8[], $6::smallint[], $7::text[], $8::text[], $9::text[])
       with ordinality u (lease, id, attempt, ago, level, logger, message, exception, place)
 where u.lease in (select h.id from held h)
    or $10 and (exists (select from queued_tasks.result r
                         where r.id = u.id and r.attempt = u.attempt and r.server = $1)
                or exists (select from queued_tasks.attempt a
                            where a.id = u.id and a.attempt = u.attempt and a.server = $1 and a.outcome <> 'interrupted'))
 order by u.place
