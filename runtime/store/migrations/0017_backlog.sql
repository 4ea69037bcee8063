-- What an autoscaler asks every few seconds: how much there is to do, by channel and kind of worker.
--
--   in_line    due and not claimed; what waits for parents or for its time is not counted, nor what all servers that take
--              tasks have declined: more of the same are of no use to it
--   may_start  of these, as many as the channel's pause and its limit for the cluster leave room for: more servers are of
--              no use to the rest. Limits per key and rates are not looked at.
--   running    claimed
--
-- Of each line at most p_most tasks are looked at, the newest: it costs the same for millions of tasks, and their end of
-- the line is free of what was claimed long ago and can't be vacuumed yet.
create function queued_tasks.backlog(p_most integer default 10000)
returns table (channel text, sync boolean, in_line bigint, may_start bigint, running bigint)
language plpgsql stable
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    return query
    with part (channel, sync, in_line, running) as (
        select l.channel, l.sync, y.count, 0
          from queued_tasks.lane l
         cross join lateral (
               select count(*)
                 from (select u.id
                         from (select r.ids from queued_tasks.bundle r
                                where r.lane = l.id order by r.seq desc limit p_most) b
                        cross join lateral unnest(b.ids) u (id) limit p_most) h
                where exists (select from queued_tasks.task t where t.id = h.id offset 0)
                  and not exists (select from queued_tasks.result r where r.id = h.id offset 0)) y
         where l.function is null
            or exists (select from queued_tasks.heartbeat h
                        where h.state = 'running' and h.workers > 0
                          and not exists (select from queued_tasks.stance s
                                           where s.function = l.function and s.server = h.server))
        union all
        select t.channel, t.executor = 1, 1, 0
          from (select d.id from queued_tasks.delayed d
                 where d.run_at <= clock_timestamp() order by d.run_at desc limit p_most) h
          join lateral (select * from queued_tasks.task k where k.id = h.id offset 0) t on true
        union all
        select t.channel, t.executor = 1, 1, 0
          from (select i.id from queued_tasks.inbox i where not i.cancel order by i.seq desc limit p_most) h
          join lateral (select * from queued_tasks.task k where k.id = h.id offset 0) t on true
         where not exists (select from queued_tasks.dependency d where d.child = h.id and not d.released offset 0)
           and not exists (select from queued_tasks.result r where r.id = h.id offset 0)
        union all
        select t.channel, t.executor = 1, 0, 1
          from queued_tasks.running u
          join lateral (select * from queued_tasks.task k where k.id = u.id offset 0) t on true
    ), whole as (
        select p.channel, p.sync, sum(p.in_line)::bigint as in_line, sum(p.running)::bigint as running,
               sum(sum(p.running)) over (partition by p.channel)::bigint as busy,
               sum(sum(p.in_line)) over (partition by p.channel order by p.sync)::bigint as so_far
          from part p
         group by p.channel, p.sync
    )
    select w.channel, w.sync, w.in_line,
           case when g.paused or g.cap = 0 then 0
                when g.cap is null or g.per_server then w.in_line
                else greatest(least(w.in_line, g.cap - w.busy - (w.so_far - w.in_line)), 0) end,
           w.running
      from whole w
      left join queued_tasks.gate g on g.channel = w.channel
     where w.in_line + w.running > 0
     order by w.channel, w.sync;
end $$;
