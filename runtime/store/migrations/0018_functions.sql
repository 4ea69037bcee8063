-- Functions that a server does not run: those that it can't find, and those that it must not run. It parks their tasks:
-- it puts them into lanes of their functions, from which only those claim who know the function.

-- What a server that can't run a function says of it, for as long as it beats and there are lanes of that function.
create table queued_tasks.stance (
    function text        not null,
    server   uuid        not null references queued_tasks.heartbeat (server) on delete cascade,
    kind     text        not null check (kind in ('unknown', 'refused')),
    reason   text        not null,
    at       timestamptz not null default now(),
    primary key (function, server)
);
create index stance_server on queued_tasks.stance (server);

-- Two servers that refuse a function at the same instant would each miss the other's stance; and a lane must not be
-- removed while somebody puts tasks into it. To be called before anything else is locked.
create function queued_tasks.hold_stances() returns void
language sql as $$
    select pg_advisory_xact_lock(hashtextextended('queued_tasks.stance', 0))
$$;

-- Note what a server says of functions, and end what nobody may run: see end_refused.
create function queued_tasks.take_stance(
    p_server uuid, p_functions text[], p_kinds text[], p_reasons text[], p_limit integer,
    out ended integer, out lined integer
)
language plpgsql as $$
begin
    ended := 0;
    lined := 0;
    perform queued_tasks.hold_stances();
    perform 1 from queued_tasks.heartbeat h where h.server = p_server for key share;
    if not found then
        return;
    end if;
    insert into queued_tasks.stance (function, server, kind, reason)
    select distinct on (u.function) u.function, p_server, u.kind, u.reason
      from unnest(p_functions, p_kinds, p_reasons) u (function, kind, reason)
     order by u.function
    on conflict (function, server) do update set kind = excluded.kind, reason = excluded.reason, at = excluded.at;
    select e.ended, e.lined into ended, lined from queued_tasks.end_refused(p_server, p_functions, p_limit) e;
end $$;

-- Park what a server claimed and can't run: the same attempts, as with give_back, in the lanes of their functions. Returns
-- how many tasks others may claim, and how many ended: see end_refused.
create function queued_tasks.park(
    p_server uuid, p_leases uuid[], p_ids uuid[], p_full uuid[], p_functions text[], p_kinds text[], p_reasons text[],
    p_limit integer, out ended integer, out lined integer
)
language plpgsql as $$
declare
    v_lined integer;
begin
    perform queued_tasks.hold_stances();
    v_lined := queued_tasks.give_back(p_server, p_leases, p_ids, p_full, true);
    select t.ended, t.lined into ended, lined
      from queued_tasks.take_stance(p_server, p_functions, p_kinds, p_reasons, p_limit) t;
    lined := lined + greatest(v_lined - ended, 0);
end $$;

-- End tasks that every server refuses which takes any: of these functions, or with null of all, up to p_limit. p_server:
-- one that takes tasks, whatever its last beat said. Whoever has not looked at a function yet may know it. Returns how
-- many ended, and how many others may be claimed because of it.
create function queued_tasks.end_refused(
    p_server uuid, p_functions text[], p_limit integer, out ended integer, out lined integer
)
language plpgsql
set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_functions text[];
    v_reasons   text[];
    v_ended     uuid[];
    v_told      text[];
begin
    ended := 0;
    lined := 0;
    perform queued_tasks.hold_stances();
    with taking as materialized (
        select h.server from queued_tasks.heartbeat h
         where h.server = p_server or (h.state = 'running' and h.workers > 0)
    ), refused as (
        select l.function,
               (select s.reason from queued_tasks.stance s join taking t on t.server = s.server
                 where s.function = l.function order by s.server = p_server desc, s.at desc limit 1) as reason
          from (select distinct x.function from queued_tasks.lane x
                 where x.function is not null and (p_functions is null or x.function = any (p_functions))) l
         where not exists (select from taking t
                            where not exists (select from queued_tasks.stance s
                                               where s.function = l.function and s.server = t.server and s.kind = 'refused'))
    )
    select array_agg(r.function), array_agg(r.reason) into v_functions, v_reasons
      from refused r where r.reason is not null;
    if v_functions is null then
        return;
    end if;

    with parked as materialized (
        select y.place, f.reason
          from unnest(v_functions, v_reasons) f (function, reason)
          join queued_tasks.lane l on l.function = f.function
         cross join lateral (
               select r.ctid as place from queued_tasks.bundle r
                where r.lane = l.id order by r.seq limit p_limit for update skip locked) y
         limit p_limit
    ), taken as (
        delete from queued_tasks.bundle r
         where r.ctid = any (array(select p.place from parked p))
        returning r.ctid as place, r.ids, r.attempt
    ), closed as (
        insert into queued_tasks.result (id, state, attempt, server, exception_name, exception_message)
        select u.id, 'failed', t.attempt - 1, p_server, 'InvalidTask', p.reason
          from taken t
          join parked p on p.place = t.place
         cross join lateral unnest(t.ids) u (id)
         where exists (select from queued_tasks.task k where k.id = u.id offset 0)
         order by u.id
        on conflict (id) do nothing
        returning result.id
    )
    select array_agg(c.id) into v_ended from closed c;
    if v_ended is null then
        return;
    end if;
    ended := cardinality(v_ended);
    perform queued_tasks.tell_watchers(v_ended);
    select e.lined, e.told into lined, v_told from queued_tasks.after_end(v_ended, v_ended) e;
    perform queued_tasks.tell(v_told);
end $$;

-- Remove the lanes of functions that hold nothing any more, and what was said of functions without any. What was cancelled
-- there no claim comes across: it goes once it stands among the first p_limit of its lane.
create function queued_tasks.prune_functions(p_limit integer) returns void
language plpgsql
set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_gone integer[];
begin
    perform queued_tasks.hold_stances();
    delete from queued_tasks.bundle r
     where r.ctid = any (array(
           select y.place
             from queued_tasks.lane l
            cross join lateral (
                  select x.ctid as place, x.ids from queued_tasks.bundle x where x.lane = l.id order by x.seq limit p_limit) y
            where l.function is not null
              and not exists (select from unnest(y.ids) u (id)
                               where exists (select from queued_tasks.task k where k.id = u.id offset 0)
                                 and not exists (select from queued_tasks.result k where k.id = u.id offset 0))));
    with gone as (
        delete from queued_tasks.lane l
         where l.function is not null and not exists (select from queued_tasks.bundle r where r.lane = l.id)
        returning l.id
    )
    select array_agg(g.id) into v_gone from gone g;
    -- in the order in which claims do it
    delete from queued_tasks.newcomer n where n.lane = any (v_gone);
    delete from queued_tasks.turn t where t.lane = any (v_gone);
    delete from queued_tasks.stance s
     where not exists (select from queued_tasks.lane l where l.function = s.function);
end $$;
