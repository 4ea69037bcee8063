-- $1 most tasks to count of a line
-- Functions that no server runs which takes tasks of their channels, though tasks of them are in line, and why.
select l.function, sum(y.count)::bigint as count,
       (select s.reason from queued_tasks.stance s where s.function = l.function order by s.at desc limit 1) as reason
  from queued_tasks.lane l
 cross join lateral (
       select count(*)
         from (select u.id
                 from (select r.ids from queued_tasks.bundle r where r.lane = l.id order by r.seq desc limit $1) b
                cross join lateral unnest(b.ids) u (id) limit $1) h
        where exists (select from queued_tasks.task t where t.id = h.id)
          and not exists (select from queued_tasks.result x where x.id = h.id)) y
 where y.count > 0
   and exists (select from queued_tasks.stance s where s.function = l.function)
   and not exists (select from queued_tasks.heartbeat h
                    where h.state = 'running' and h.workers > 0
                      and case when json_array_length(h.details -> 'channels') > 0
                               then (h.details -> 'channels')::jsonb ? l.channel
                               else ((h.details -> 'excluded_channels')::jsonb ? l.channel) is not true end
                      and not exists (select from queued_tasks.stance s
                                       where s.function = l.function and s.server = h.server))
 group by l.function
 order by l.function
