-- Following a task as it goes on. Who does has a row in waiter, as who waits for its end, with `progress` set.
alter table queued_tasks.waiter add column progress boolean not null default false;
create index waiter_progress on queued_tasks.waiter (task_id) where progress;
comment on column queued_tasks.waiter.progress is 'is also told when the task starts, logs, or changes its context';

-- Tell those who follow these tasks. A look into an empty index while nobody does.
create function queued_tasks.tell_watchers(p_ids uuid[]) returns void
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
    if exists (select from queued_tasks.waiter w where w.progress) then
        perform pg_notify(w.topic, '+' || w.task_id)
           from queued_tasks.waiter w where w.progress and w.task_id = any (p_ids);
    end if;
end $$;

-- How far tasks have come, as one text each that changes whenever something does: null for a task that is not there.
create function queued_tasks.get_progress(p_ids uuid[]) returns table (id uuid, progress text)
language plpgsql stable
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_running uuid[];
begin
    select array_agg(r.id) into v_running from queued_tasks.running r where r.id = any (p_ids);
    return query
    select q.id,
           case when t.id is not null then
                concat_ws(' ',
                    case when r.state is not null then r.state::text
                         when s.id is not null then 'stopped'
                         when q.id = any (v_running) then 'doing'
                         when exists (select from queued_tasks.dependency d where d.child = q.id and not d.released offset 0)
                             then 'waiting'
                         else 'enqueued' end,
                    coalesce(a.last, 0), coalesce(c.attempt, 0), coalesce(c.version, 0), coalesce(g.last, 0)) end
      from unnest(p_ids) q (id)
      left join lateral (select x.id from queued_tasks.task x where x.id = q.id offset 0) t on true
      left join lateral (select x.state from queued_tasks.result x where x.id = q.id offset 0) r on true
      left join lateral (select x.id from queued_tasks.stopped x where x.id = q.id offset 0) s on true
      left join lateral (select max(x.attempt) as last from queued_tasks.attempt x where x.id = q.id) a on true
      left join lateral (select x.attempt, x.version from queued_tasks.context x where x.id = q.id
                          order by x.attempt desc, x.version desc limit 1) c on true
      left join lateral (select max(x.id) as last from queued_tasks.log x where x.task_id = q.id) g on true;
end $$;

-- Tasks that asked to be removed when done, and stay until all have read their results who were waiting for them.
create table queued_tasks.lingering (
    id    uuid        not null,
    topic text        not null,
    since timestamptz not null default now(),
    primary key (id, topic)
);

-- Whoever listens on this topic has read these results. Who reads last removes the tasks: the lock lets two that read at
-- the same time come one after the other.
create function queued_tasks.have_read(p_ids uuid[], p_topic text) returns void
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
    perform 1 from queued_tasks.lingering l where l.id = any (p_ids) order by l.id, l.topic for update;
    delete from queued_tasks.lingering l where l.id = any (p_ids) and l.topic = p_topic;
    perform queued_tasks.remove_finished(array(
            select u.id from unnest(p_ids) u (id)
             where not exists (select from queued_tasks.lingering l where l.id = u.id offset 0)), '{}', '{}');
end $$;

-- Remove those whose readers have not come within half a minute. Returns how many it looked at.
create function queued_tasks.remove_lingering(p_limit integer) returns integer
language plpgsql as $$
declare
    v_ids uuid[];
begin
    with over as materialized (
        select l.id from queued_tasks.lingering l
         where l.since < now() - interval '30 seconds'
         order by l.id limit p_limit for update skip locked
    ), gone as (
        delete from queued_tasks.lingering l using over o where l.id = o.id
    )
    select array_agg(distinct o.id) into v_ids from over o;
    perform queued_tasks.remove_finished(v_ids, '{}', '{}');
    return coalesce(cardinality(v_ids), 0);
end $$;
