-- Take unique keys for new tasks, but for those in p_skip. Returns the tasks whose key another one holds, and that one.
-- Waits for a transaction that is taking one of them, but for a moment only: others may be in the same batch. A holder that
-- plain SQL has cancelled, and no server has come by for, is cancelled here, unless it runs.
create function queued_tasks.hold_keys(p_ids uuid[], p_keys text[], p_skip uuid[], out losers uuid[], out winners uuid[])
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off
set lock_timeout = '5s'
as $$
declare
    v_free     boolean;
    v_unwanted uuid[];
    v_ended    uuid[];
    v_told     text[];
begin
    -- Again when a holder that stood in the way has ended before we could read who it was.
    loop
        -- in the order of the keys, so that two batches can't wait for each other
        insert into queued_tasks.unique_task (key, id)
        select f.key, f.id
          from (select distinct on (u.key) u.key, u.id
                  from unnest(p_ids, p_keys) with ordinality u (id, key, place)
                 where u.key is not null and u.id not in (select unnest(p_skip))
                 order by u.key, u.place) f
         order by f.key
        on conflict (key) do nothing;

        select coalesce(array_agg(u.id) filter (where k.id <> u.id), '{}'),
               coalesce(array_agg(k.id) filter (where k.id <> u.id), '{}'),
               bool_or(k.id is null)
          into losers, winners, v_free
          from unnest(p_ids, p_keys) u (id, key)
          left join lateral (select x.id from queued_tasks.unique_task x where x.key = u.key offset 0) k on true
         where u.key is not null and u.id not in (select unnest(p_skip));
        continue when v_free;
        select array_agg(i.id) into v_unwanted
          from queued_tasks.inbox i where i.cancel and i.id in (select unnest(winners));
        exit when v_unwanted is null;
        select c.ended, c.told into v_ended, v_told from queued_tasks.cancel_tasks(v_unwanted, 'on request') c;
        exit when v_ended is null;
        perform queued_tasks.tell(v_told);
    end loop;
end $$;

-- Make the ends of tasks wait for this transaction, or wait for them. To end a task is to insert its result, so a
-- result inserted here, and deleted again, keeps that place occupied until we are through: either a parent's end waits
-- for us and then finds the child, or we waited for it and see it when we look at the child.
--
-- All of them or none: whoever we wait for may be waiting for one that we occupy, so after a moment these are given up
-- and tried again. Those that a new child's end may remove (see remove_finished) are locked here for the same reason.
create function queued_tasks.hold_ends(p_ids uuid[]) returns void
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off
set lock_timeout = '100ms'
as $$
declare
    v_places tid[];
    v_tries  integer := 0;
begin
    loop
        begin
            perform 1
               from (select distinct x.id from unnest(p_ids) x (id) order by x.id) u
              cross join lateral (
                    select from queued_tasks.task t where t.id = u.id and t.auto_remove for no key update) t;
            with held as (
                insert into queued_tasks.result (id, state, attempt)
                select u.id, 'cancelled', 0 from unnest(p_ids) u (id) order by u.id
                on conflict (id) do nothing
                returning result.ctid as place
            )
            select array_agg(h.place) into v_places from held h;
            delete from queued_tasks.result r where r.ctid = any (v_places);
            return;
        exception when lock_not_available then
            v_tries := v_tries + 1;
            if v_tries = 50 then
                raise;
            end if;
        end;
    end loop;
end $$;

-- Write tasks, plain ones and graphs alike. Repeating a call is harmless: lines, dependencies and unique keys come only
-- from tasks that this very call inserted, and p_repeat (the answer to an earlier call was lost) also passes over tasks
-- that were written, and perhaps removed, meanwhile.
--
-- What tasks have in common comes once: p_form says which of the forms, the f_ arrays, is a task's; null: the first for
-- all. Any other array that is null means null for every task. p_args is one array of JSON, as clients are slow to make one
-- of PostgreSQL's from many texts.
-- Returns a row for each task that was not written because another with its unique key stands, and with p_repeat for each
-- that was written before, which is its own winner.
create function queued_tasks.add_tasks(
    p_id uuid[], p_form integer[], p_args json, p_kwargs json[], p_key text[], p_run_at timestamptz[],
    p_expires_at timestamptz[], p_unique_key text[], p_parents text[], p_context json[], p_signature bytea[],
    f_function text[], f_executor smallint[], f_name text[], f_channel text[], f_lane integer[], f_priority smallint[],
    f_max_retries smallint[], f_timeout float8[], f_auto_remove boolean[], f_on_parent_failure text[],
    p_repeat boolean
) returns table (loser uuid, winner uuid)
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan -- another looks for a form by walking over all of them
set lock_timeout = '10s'
as $$
declare
    v_lined   boolean := false;
    v_limited text[];
    v_keyed   text[];
    v_repeat  boolean := p_repeat;
    v_tries   integer := 0;
    v_skip    uuid[];
    v_take    boolean[];  -- which are written; null: all
    v_losers  uuid[];
    v_winners uuid[];
    v_added   uuid[];
    v_outer   uuid[];
begin
    if p_repeat then
        -- Something to commit even when all is written: that waits for the standby, which the earlier call may have been
        -- kept from.
        perform pg_logical_emit_message(true, 'queued_tasks', '');
    end if;
    loop
        v_skip := '{}';
        v_losers := '{}';
        v_winners := '{}';
        begin
            if v_repeat or p_unique_key is not null then
                select coalesce(array_agg(u.id), '{}') into v_skip
                  from unnest(p_id) u (id)
                 where exists (select from queued_tasks.tombstone s where s.id = u.id offset 0)
                    or exists (select from queued_tasks.task t where t.id = u.id offset 0);
            end if;

            if p_unique_key is not null then
                select w.losers, w.winners into v_losers, v_winners
                  from queued_tasks.hold_keys(p_id, p_unique_key, v_skip) w;
                v_skip := v_skip || v_losers;
            end if;

            v_take := null;
            if v_skip <> '{}' then
                select array_agg(u.id not in (select unnest(v_skip)) order by u.place) into v_take
                  from unnest(p_id) with ordinality u (id, place);
            end if;

            insert into queued_tasks.task (id, function, executor, args, kwargs, name, channel, key, priority,
                   max_retries, timeout, run_at, expires_at, unique_key, auto_remove, on_parent_failure, parents,
                   stand_ins, context, signature)
            select u.id, f_function[u.form], f_executor[u.form], u.args, u.kwargs, f_name[u.form], f_channel[u.form],
                   u.key, f_priority[u.form], f_max_retries[u.form], f_timeout[u.form], u.run_at, u.expires_at,
                   u.unique_key, f_auto_remove[u.form], f_on_parent_failure[u.form], u.parents::uuid[],
                   case when v_losers <> '{}' and u.parents::uuid[] && v_losers then
                        array(select coalesce(v_winners[array_position(v_losers, p.id)], p.id)
                                from unnest(u.parents::uuid[]) with ordinality p (id, place) order by p.place) end,
                   u.context, u.signature
              from (select unnest(p_id) as id, unnest(coalesce(p_form, array_fill(1, array[cardinality(p_id)]))) as form,
                           json_array_elements(p_args) as args, unnest(p_kwargs) as kwargs, unnest(p_key) as key,
                           unnest(p_run_at) as run_at, unnest(p_expires_at) as expires_at,
                           unnest(p_unique_key) as unique_key, unnest(p_parents) as parents,
                           unnest(p_context) as context, unnest(p_signature) as signature,
                           unnest(v_take) as take) u
             where u.take is not false;
            exit;
        exception when unique_violation then
            -- Somebody else has written one of them meanwhile. Not `on conflict`: that makes each insert a third dearer.
            v_tries := v_tries + 1;
            if v_tries = 10 then
                raise;
            end if;
            v_repeat := true;
        end;
    end loop;

    if p_run_at is not null then
        insert into queued_tasks.delayed (run_at, id, attempt)
        select u.run_at, u.id, 1
          from unnest(p_id, p_run_at, p_parents, v_take) u (id, run_at, parents, take)
         where u.parents is null and u.run_at > now() and u.take is not false;
    end if;

    -- Those of a lane that come one behind the other share a row, but for those that limits may pick out.
    if p_form is null and p_key is null and p_run_at is null and p_parents is null and v_skip = '{}' then
        insert into queued_tasks.bundle (lane, ids, attempt)
        select f_lane[1], p_id[u.first:u.first + 63], 1 from generate_series(1, cardinality(p_id), 64) u (first)
         where not exists (select from queued_tasks.gate g where g.channel = f_channel[1])
           and exists (select from queued_tasks.lane l where l.id = f_lane[1]);
        v_lined := found;
    end if;
    if not v_lined then
        if exists (select from unnest(f_lane) u (id)
                    where not exists (select from queued_tasks.lane l where l.id = u.id offset 0)) then
            -- nobody would ever look there; the caller knows it from before a failover, and learns anew with a new connection
            raise exception 'a lane of these tasks is gone' using errcode = 'QT002';
        end if;
        select array_agg(g.channel), array_agg(g.channel) filter (where g.key_cap is not null) into v_limited, v_keyed
          from queued_tasks.gate g;
        with lined as (
            insert into queued_tasks.bundle (lane, ids, attempt, key)
            select r.lane, array_agg(r.id order by r.place), 1, min(r.key)
              from (select n.lane, n.id, n.place, n.key, n.alone, n.turn / 64 as part, n.place - n.turn as run
                      from (select f_lane[f.form] as lane, u.id, u.place,
                                   coalesce(u.key, case when f_channel[f.form] = any (v_keyed) then '' end) as key,
                                   case when u.key is not null or f_channel[f.form] = any (v_limited) then u.place end as alone,
                                   row_number() over (partition by f_lane[f.form] order by u.place) as turn
                              from unnest(p_id, p_form, p_key, p_run_at, p_parents, v_take)
                                   with ordinality u (id, form, key, run_at, parents, take, place)
                             cross join lateral (select coalesce(u.form, 1)) f (form)
                             where u.parents is null and (u.run_at is null or u.run_at <= now())
                               and u.take is not false) n) r
             group by r.lane, r.run, r.part, r.alone
             order by min(r.place)
            returning lane, key, seq
        )
        insert into queued_tasks.newcomer (lane, key, first)
        select y.lane, y.key, min(y.seq)
          from lined y
          join queued_tasks.lane l on l.id = y.lane
         where v_keyed is not null and l.channel = any (v_keyed)
         group by y.lane, y.key;
    end if;

    if p_parents is not null then
        select array_agg(u.id) into v_added
          from unnest(p_id, p_parents, v_take) u (id, parents, take)
         where u.parents is not null and u.take is not false;
    end if;

    if v_added is not null then
        insert into queued_tasks.dependency (parent, child)
        select distinct p.id, t.id
          from unnest(v_added) u (id)
         cross join lateral (select * from queued_tasks.task k where k.id = u.id offset 0) t
         cross join unnest(coalesce(t.stand_ins, t.parents)) p (id);

        select array_agg(o.parent) into v_outer
          from (select d.parent
                  from unnest(v_added) u (id)
                 cross join lateral (select k.parent from queued_tasks.dependency k where k.child = u.id offset 0) d
                except select u.id from unnest(p_id) u (id) where u.id not in (select unnest(v_skip))) o;
        if v_outer is not null then
            perform queued_tasks.hold_ends(v_outer);
            perform queued_tasks.let_go(
                array(select distinct u.id
                        from unnest(v_added) u (id)
                       cross join lateral (select k.parent from queued_tasks.dependency k where k.child = u.id offset 0) d
                        join unnest(v_outer) o (id) on o.id = d.parent));
        end if;
    end if;

    return query select u.l, u.w from unnest(v_losers, v_winners) u (l, w);
    if p_repeat then
        return query select u.id, u.id from unnest(v_skip) u (id) where u.id not in (select unnest(v_losers));
    end if;
end $$;
