-- An instant as enqueuers sign it, since the epoch. Theirs end with the year 9999, of which the last one is stored as
-- infinity. Whatever somebody has written into a row by hand, this must not fail: it would keep others from claiming.
create function queued_tasks.microseconds(p_at timestamptz) returns bigint
language sql stable strict as $$
    select (extract(epoch from greatest(least(p_at, timestamptz '9999-12-31 23:59:59.999999+00'),
                                        timestamptz '0001-01-01 00:00:00+00')) * 1000000)::bigint
$$;

-- What the parents of a task returned, in this order, null for one that did not end done. An empty array when all
-- that is more than travels well with a claim: the task asks for it when it wants it.
create function queued_tasks.parent_results(p_parents uuid[]) returns json
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
    return (select case when coalesce(sum(octet_length(r.result::text)), 0) <= 262144
                        then json_agg(r.result order by p.place) else '[]' end
              from unnest(p_parents) with ordinality p (id, place)
              left join lateral (select k.result from queued_tasks.result k
                                  where k.id = p.id and k.state = 'done' offset 0) r on true);
end $$;

-- Take up to p_limit tasks for a server, most urgent first: by the rank of the lane, then in the order of arrival.
--
-- Lanes are read from above their low-water (p_lows, kept by the claimer): an index scan from the start of a line would
-- walk over everything that was ever claimed while vacuum is held back. Rows that another server is claiming are passed
-- over, not waited for. The look takes no locks, so that a claim over many lanes locks just what it takes.
--
-- Of channels with limits it takes what these let through. What has no id is no task: the last row says in `timeout` in how
-- many seconds a rate lets more through, where none may start now; others the low-water of a lane where keys take turns,
-- below zero, as it is one of newcomers (see in_turn). A task that was taken in the turn of its key has seq 0.
--
-- `sealed` is what a signature covers beyond the other columns: see Claimed.as_written. It costs nothing without one.
--
-- Two locks make claims fall into order with what others decide: the heartbeat row (a server that was given up claims
-- nothing, and a claim that the server has given up takes nothing), and a shared advisory lock that whoever cancels
-- unstarted tasks takes exclusively (see cancel_tasks).
create function queued_tasks.claim(p_server uuid, p_lease uuid, p_lanes integer[], p_ranks integer[], p_lows bigint[], p_limit integer)
returns table (lane integer, seq bigint, id uuid, attempt integer, failures integer, timeouts integer, crashes integer,
               function text, name text, executor smallint, args json, kwargs json, context json, timeout float8,
               max_retries smallint, flagged boolean, expired boolean, signature bytea, sealed json, parents json)
language plpgsql rows 100
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_ids    uuid[];
    v_lanes  integer[];
    v_seqs   bigint[];
    v_tries  integer[];
    v_count  integer := 0;
    v_lows   bigint[] := p_lows;
    v_want   integer;
    v_window integer;
    v_seen   integer;
    v_rows   integer;    -- so many may be locked though fewer would do, if others had hold of none
    v_all    boolean;    -- what is left of those that were seen others have hold of
    v_wait   tid;        -- a bundle that somebody else is claiming from
    v_until  timestamptz;
    v_timeout text := current_setting('lock_timeout');
    v_limits boolean;
    v_let    tid[];      -- what limited channels let through: see let_through
    v_ranks  integer[];
    v_turns  bigint[];
    v_closed integer[];
    v_keyed  integer[];
    v_come   bigint[];
    v_next   float8;
    v_over   boolean;    -- some of them have ended: they were cancelled
    v_dropped boolean;
    v_followed boolean;
begin
    -- A claim that a crash of PostgreSQL takes with it has left its tasks in line, and its outcomes are refused.
    perform set_config('synchronous_commit', 'off', true),
            pg_advisory_xact_lock_shared(hashtextextended('queued_tasks.claim', 0));
    -- in a new statement: limits may have been set by whom we waited for
    select p_lease = any (h.dropped), exists (select from queued_tasks.gate) into v_dropped, v_limits
      from queued_tasks.heartbeat h where h.server = p_server for key share;
    if not found then
        raise exception 'server % has lost its lease', p_server using errcode = 'QT001';
    elsif v_dropped then
        return;
    end if;

    -- No rows means that there is nothing to claim: look behind what others are claiming, and behind what we took when all
    -- of that turned out to be cancelled or removed.
    loop
        if v_limits then
            select t.places, t.ranks, t.seqs, t.closed, t.keyed, t.come, t.next_in
              into v_let, v_ranks, v_turns, v_closed, v_keyed, v_come, v_next
              from queued_tasks.let_through(p_server, p_lanes, p_ranks, v_lows, p_limit) t;
        end if;
        v_lanes := '{}';
        v_seqs := '{}';
        v_ids := '{}';
        v_tries := '{}';
        v_want := p_limit;
        v_window := least(greatest(p_limit / 32, 16), p_limit);
        v_rows := 1;
        loop
            with head as materialized (
                select h.place, h.rank, h.seq, h.turn, h.size,
                       sum(h.size) over (order by h.rank, h.seq, h.turn rows unbounded preceding) - h.size as before
                  from (select u.place, u.rank, u.seq, u.turn, 1 as size
                          from unnest(v_let, v_ranks, v_turns) with ordinality u (place, rank, seq, turn)
                        union all
                        select r.place, l.rank, r.seq, 0, r.size
                          from unnest(p_lanes, p_ranks, v_lows) l (lane, rank, low)
                         cross join lateral (
                               select y.ctid as place, y.seq, cardinality(y.ids) as size from queued_tasks.bundle y
                                where y.lane = l.lane and y.seq > l.low
                                order by y.seq limit v_window offset 0) r
                         where v_closed is null or l.lane <> all (v_closed)) h
                 order by h.rank, h.seq, h.turn
                limit v_window
            ), looked as materialized (
                select count(*) as rows, min(h.place) filter (where h.size > 1) as bundle,
                       least(v_want, greatest(v_rows, count(*) filter (where h.before < v_want))) as most
                  from head h
            ), picked as materialized (
                select y.place, y.lane, y.seq, y.ids, y.attempt, cardinality(y.ids) as size,
                       sum(cardinality(y.ids)) over (order by y.rank, y.head, y.turn rows unbounded preceding) as upto
                  from (select h.rank, h.seq as head, h.turn, k.*
                          from head h
                         cross join lateral (
                               select k.ctid as place, k.lane, k.seq, k.ids, k.attempt
                                 from queued_tasks.bundle k where k.ctid = h.place for update skip locked) k
                         limit (select l.most from looked l)) y
            ), gone as (
                delete from queued_tasks.bundle y
                 where y.ctid = any (array(select p.place from picked p where p.upto - p.size < v_want))
            )
            select v_lanes || t.lanes, v_seqs || t.seqs, v_ids || t.ids, v_tries || t.tries,
                   l.rows, (select count(*) from picked) < l.most or l.rows <= l.most, l.bundle
              into v_lanes, v_seqs, v_ids, v_tries, v_seen, v_all, v_wait
              from (select array_agg(p.lane) as lanes, array_agg(p.seq + u.place - 1) as seqs, array_agg(u.id) as ids,
                           array_agg(p.attempt) as tries
                      from picked p
                     cross join lateral unnest(p.ids) with ordinality u (id, place)
                     where p.upto - p.size < v_want) t
             cross join looked l;
            if cardinality(v_ids) > p_limit then
                insert into queued_tasks.bundle (lane, seq, ids, attempt)
                values (v_lanes[p_limit + 1], v_seqs[p_limit + 1], v_ids[p_limit + 1:], v_tries[p_limit + 1]);
                v_lanes := v_lanes[:p_limit];
                v_seqs := v_seqs[:p_limit];
                v_ids := v_ids[:p_limit];
                v_tries := v_tries[:p_limit];
            end if;
            v_want := p_limit - cardinality(v_ids);
            exit when v_want = 0 or v_all and v_seen < v_window;
            -- from the start again: what stood there may be gone
            if v_all then
                v_window := greatest(v_window * 4, p_limit);
            end if;
            v_rows := greatest(v_rows * 4, 4);
        end loop;
        if v_ids = '{}' then
            -- Somebody else takes some of these, and may leave the others: a moment's wait is less than until the next look.
            v_until := coalesce(v_until, clock_timestamp() + interval '250 ms');
            exit when v_wait is null or clock_timestamp() >= v_until;
            begin
                perform set_config('lock_timeout', greatest(1, ceil(extract(epoch from v_until - clock_timestamp()) * 1000))::text,
                                   true);
                perform from queued_tasks.bundle y where y.ctid = v_wait for update;
                perform set_config('lock_timeout', v_timeout, true);
            exception when lock_not_available or deadlock_detected then
                exit;
            end;
            continue;
        end if;

        v_over := exists (select from queued_tasks.result r where r.id = any (v_ids));
        return query
        select q.lane, case when q.lane = any (v_keyed) then 0 else q.seq end, q.id, q.attempt,
               case when q.attempt = 1 then 0 else (
                    select count(*)::integer from queued_tasks.attempt a
                     where a.id = q.id and a.outcome in ('failed', 'timeout')) end,
               case when q.attempt = 1 then 0 else (
                    select count(*)::integer from queued_tasks.attempt a
                     where a.id = q.id and a.outcome = 'timeout') end,
               case when q.attempt = 1 then 0 else (
                    select count(*)::integer from queued_tasks.attempt a
                     where a.id = q.id and a.outcome = 'crashed') end,
               t.function, coalesce(t.name, split_part(t.function, ':', 2)), t.executor, t.args, t.kwargs,
               case when q.attempt = 1 then t.context else coalesce((
                    select c.value from queued_tasks.context c where c.id = q.id
                     order by c.attempt desc, c.version desc limit 1), t.context) end,
               t.timeout, t.max_retries,
               t.unique_key is not null or t.auto_remove or t.parents is not null,
               coalesce(t.expires_at <= now(), false), t.signature,
               case when t.signature is not null then
                    json_build_array(t.name, t.channel, t.key, t.priority, queued_tasks.microseconds(t.run_at),
                                     queued_tasks.microseconds(t.expires_at), t.unique_key, t.auto_remove,
                                     t.on_parent_failure, t.parents,
                                     case when q.attempt > 1 then t.context::text end) end,
               case when t.parents is not null then
                    queued_tasks.parent_results(coalesce(t.stand_ins, t.parents)) end
          from (select unnest(v_lanes) as lane, unnest(v_seqs) as seq, unnest(v_ids) as id, unnest(v_tries) as attempt) q
          join lateral (select * from queued_tasks.task k where k.id = q.id offset 0) t on true
         where not v_over or not exists (select from queued_tasks.result r where r.id = q.id offset 0);
        get diagnostics v_count = row_count;
        exit when v_count > 0;

        select array_agg(case when l.lane = any (v_keyed) then coalesce(-v_come[array_position(v_keyed, l.lane)], l.low)
                              else greatest(l.low, t.seq) end order by l.place) into v_lows
          from unnest(p_lanes, v_lows) with ordinality l (lane, low, place)
          left join (select u.lane, max(u.seq) as seq from unnest(v_lanes, v_seqs) u (lane, seq) group by u.lane) t
            on t.lane = l.lane;
    end loop;

    if v_count > 0 then
        if v_count < cardinality(v_ids) then
            select array_agg(q.lane), array_agg(q.id), array_agg(q.attempt) into v_lanes, v_ids, v_tries
              from unnest(v_lanes, v_ids, v_tries) q (lane, id, attempt)
             where exists (select from queued_tasks.task t where t.id = q.id offset 0)
               and not exists (select from queued_tasks.result r where r.id = q.id offset 0);
        end if;
        insert into queued_tasks.lease (id, server, ids, attempts) values (p_lease, p_server, v_ids, v_tries)
        returning exists (select from queued_tasks.waiter w where w.progress) into v_followed;
        if v_followed then
            perform queued_tasks.tell_watchers(v_ids);
        end if;
        if v_lanes && v_closed then
            perform queued_tasks.take_tokens(p_server, p_lease, v_lanes, v_ids);
        end if;
    end if;
    for i in 1 .. coalesce(cardinality(v_keyed), 0) loop
        continue when v_come[i] is null;
        lane := v_keyed[i];
        seq := -v_come[i];
        return next;
    end loop;
    if v_next is not null then
        lane := null;
        seq := null;
        timeout := v_next;
        return next;
    end if;
end $$;
