-- Let delayed tasks that are due into their lines. Returns how many, and in how many seconds the next one is due.
create function queued_tasks.promote(p_limit integer, out lined integer, out next_in float8)
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now      timestamptz := clock_timestamp();  -- a variable: the index can't look for what the clock says by and by
    v_ids      uuid[];
    v_attempts integer[];
begin
    with due as materialized (
        select d.ctid as place from queued_tasks.delayed d
         where d.run_at <= v_now
         order by d.run_at, d.id limit p_limit
           for update skip locked
    ), taken as (
        delete from queued_tasks.delayed d where d.ctid = any (array(select u.place from due u))
        returning d.run_at, d.id, d.attempt
    )
    select array_agg(t.id order by t.run_at, t.id), array_agg(t.attempt order by t.run_at, t.id)
      into v_ids, v_attempts from taken t;

    lined := 0;
    if v_ids is not null then
        lined := queued_tasks.line_up(v_ids, v_attempts, false);
    end if;
    -- not of the difference: PostgreSQL 15 and 16 can't subtract from infinity
    select extract(epoch from d.run_at) - extract(epoch from clock_timestamp()) into next_in
      from queued_tasks.delayed d order by d.run_at limit 1;
end $$;

-- Remove tasks that ended more than p_retention seconds ago, a batch at a time. Ids are in the order of creation, so
-- nothing newer than the cut can be among those with a smaller id.
create function queued_tasks.prune(p_retention float8, p_limit integer) returns integer
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_cut  timestamptz := now() - p_retention * interval '1 second';
    v_ids  uuid[];
begin
    if not queued_tasks.begin_duty('prune') then
        return 0;
    end if;
    select array_agg(o.id) into v_ids
      from (select r.id from queued_tasks.result r
             where r.id < (lpad(to_hex((extract(epoch from v_cut) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
               and r.ended_at < v_cut
               and not exists (select from queued_tasks.dependency d
                                where d.parent = r.id
                                  and not exists (select from queued_tasks.result x where x.id = d.child))
             order by r.id
             limit p_limit) o;
    if v_ids is null then
        return 0;
    end if;
    perform queued_tasks.hold_leases(v_ids);
    perform queued_tasks.remove_tasks(v_ids);
    return cardinality(v_ids);
end $$;

-- Remove tasks that have not started: enqueued ones and those that wait for a parent, with the descendants that could
-- never run without them. Holds back claims meanwhile, as cancel_tasks does, so that none of them is claimed and removed
-- at once. Of each kind up to p_limit; returns how many there were.
create function queued_tasks.clear_tasks(p_name text, p_channel text, p_limit integer) returns integer
language plpgsql
set jit = off set enable_hashjoin = off set enable_mergejoin = off
set lock_timeout = '10s'
as $$
declare
    v_ids    uuid[];
    v_family uuid[];
begin
    perform pg_advisory_xact_lock(hashtextextended('queued_tasks.claim', 0));
    with lined as materialized (
        select y.ctid as place, u.id
          from queued_tasks.bundle y
         cross join lateral unnest(y.ids) u (id)
          join lateral (select t.name, t.function, t.channel from queued_tasks.task t where t.id = u.id offset 0) t on true
         where (p_name is null or coalesce(t.name, split_part(t.function, ':', 2)) = p_name)
           and (p_channel is null or t.channel = p_channel)
           and not exists (select from queued_tasks.result r where r.id = u.id)
         limit p_limit
    ), later as materialized (
        select d.ctid as place, d.id
          from queued_tasks.delayed d
          join lateral (select t.name, t.function, t.channel from queued_tasks.task t where t.id = d.id offset 0) t on true
         where (p_name is null or coalesce(t.name, split_part(t.function, ':', 2)) = p_name)
           and (p_channel is null or t.channel = p_channel)
           and not exists (select from queued_tasks.result r where r.id = d.id)
         limit p_limit
    ), waiting as materialized (
        select distinct d.child as id
          from queued_tasks.dependency d
          join lateral (select t.name, t.function, t.channel from queued_tasks.task t where t.id = d.child offset 0) t on true
         where not d.released
           and (p_name is null or coalesce(t.name, split_part(t.function, ':', 2)) = p_name)
           and (p_channel is null or t.channel = p_channel)
           and not exists (select from queued_tasks.result r where r.id = d.child)
         limit p_limit
    ), unlined as (
        delete from queued_tasks.bundle y where y.ctid = any (array(select l.place from lined l))
        returning y.lane, y.seq, y.ids, y.attempt, y.key
    ), kept as (
        insert into queued_tasks.bundle (lane, seq, ids, attempt, key)
        select y.lane, y.seq, s.ids, y.attempt, y.key
          from unlined y
         cross join lateral (
               select array_agg(u.id order by u.place) as ids
                 from unnest(y.ids) with ordinality u (id, place) where u.id not in (select l.id from lined l)) s
         where s.ids is not null
    ), undelayed as (
        delete from queued_tasks.delayed d where d.ctid = any (array(select l.place from later l))
    )
    select array_agg(o.id) into v_ids
      from (select l.id from lined l union select l.id from later l union select w.id from waiting w) o;
    if v_ids is null then
        return 0;
    end if;

    perform queued_tasks.hold_leases(v_ids);
    perform queued_tasks.lock_families(v_ids);
    -- in a new statement: one that waited when we looked may have ended while we waited for its lock
    with recursive family (id) as (
        select u.id from unnest(v_ids) u (id)
         where not exists (select from queued_tasks.result r where r.id = u.id)
        union
        select d.child
          from family f
          join queued_tasks.dependency d on d.parent = f.id and not d.released
          join queued_tasks.task t on t.id = d.child and t.on_parent_failure is distinct from 'run'
         where not exists (select from queued_tasks.result r where r.id = d.child)
    )
    select array_agg(f.id order by f.id) into v_family from family f;
    if v_family is null then
        return 0;
    end if;
    -- who adds a child to one of them at this moment is waited for, or waits and finds it gone
    perform queued_tasks.hold_ends(v_family);
    -- and one may have been let go meanwhile
    delete from queued_tasks.delayed d
     using queued_tasks.task t
     where t.id = any (v_family) and d.run_at = t.run_at and d.id = t.id;
    perform queued_tasks.remove_tasks(v_family);
    perform queued_tasks.tell(g.told)
       from queued_tasks.let_go(array(
            select distinct d.child from queued_tasks.dependency d
             where d.parent = any (v_family) and not d.released)) g;
    return cardinality(v_family);
end $$;

-- A child is let go by the transaction that ends its last parent. This finds what that could have missed, such as a
-- parent that was removed by hand.
create function queued_tasks.sweep_children(p_limit integer) returns integer
language plpgsql as $$
declare
    v_children uuid[];
begin
    if not queued_tasks.begin_duty('sweep') then
        return 0;
    end if;
    select array_agg(o.child) into v_children
      from (select distinct d.child
              from queued_tasks.dependency d
              left join queued_tasks.task p on p.id = d.parent
              left join queued_tasks.result r on r.id = d.parent
             where not d.released and (p.id is null or r.id is not null)
               and not exists (select from queued_tasks.result x where x.id = d.child)
               and not exists (select from queued_tasks.dependency o
                                 join queued_tasks.task q on q.id = o.parent
                                where o.child = d.child and not exists (select from queued_tasks.result e where e.id = o.parent))
             limit p_limit) o;
    if v_children is null then
        return 0;
    end if;
    perform queued_tasks.tell(g.told) from queued_tasks.let_go(v_children) g;
    return cardinality(v_children);
end $$;
