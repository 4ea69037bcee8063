-- Channels with limits. Their tasks stand in line like all others; the claim lets through what the limits leave room for.
--
--   gate        the limits of a channel; one without a row has none
--   lifted      the channels whose limits somebody has lifted: no server gives them others when it starts
--   token       what runs in a limited channel: a row for each task from its claim until its lease lets go of it
--   gate_state  how far the rate's bucket is filled and whose turn it is: versions are appended and read newest first,
--               because a row updated in place decays while vacuum is held back
--
-- There is no counter that could be wrong: the tokens are counted under the lock of the channel, which only claims take.
-- Who ends an attempt just deletes its token, whatever becomes of the task.

create table queued_tasks.gate (
    channel     text        primary key,
    cap         integer     check (cap >= 0),
    per_server  boolean     not null default false,
    key_cap     integer     check (key_cap > 0),
    rate_count  integer     check (rate_count > 0),
    rate_period float8      check (rate_period > 0),
    paused      boolean     not null default false,
    changed_at  timestamptz not null default now(),
    check ((rate_count is null) = (rate_period is null))
);
comment on column queued_tasks.gate.cap is 'tasks that may run at once, in the cluster or on each server; null: any number';
comment on column queued_tasks.gate.rate_period is 'seconds in which rate_count tasks may start';

-- Not a gate without limits: claims and settlements look whether there is any gate at all.
create table queued_tasks.lifted (
    channel text primary key
);

create sequence queued_tasks.token_seq cache 1;

create table queued_tasks.token (
    id      uuid   primary key,
    channel text   not null,
    key     text   not null collate "C",
    server  uuid   not null,
    lease   uuid   not null,
    seq     bigint not null default nextval('queued_tasks.token_seq')
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index token_channel on queued_tasks.token (channel, seq);

create table queued_tasks.gate_state (
    channel text        not null,
    version bigint      not null,
    level   float8,
    at      timestamptz not null,
    low     bigint      not null,
    turn    text        not null collate "C",
    primary key (channel, version)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on column queued_tasks.gate_state.level is 'tasks that may start now, at `at`; null: as many as the rate allows at most';
comment on column queued_tasks.gate_state.low is 'no token of the channel has a smaller seq';
comment on column queued_tasks.gate_state.turn is 'the key that had the last turn';

-- How many more tasks of a limited channel may run, as far as its cap goes; at most p_limit.
create function queued_tasks.cap_room(p_gate queued_tasks.gate, p_server uuid, p_low bigint, p_limit integer)
returns integer
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
    if p_gate.cap is null then
        return p_limit;
    end if;
    return least(p_limit, p_gate.cap - (
           select count(*)::integer
             from queued_tasks.token k
            where k.channel = p_gate.channel and k.seq >= p_low and (k.server = p_server or not p_gate.per_server)));
end $$;

-- How many tasks of a channel with a rate may start now: a token bucket, which begins full and holds one period's worth. A
-- clock that is set back fills it like one that goes on: otherwise nothing would start for as long.
create function queued_tasks.rate_room(p_gate queued_tasks.gate, p_level float8, p_at timestamptz) returns float8
language sql
as $$
    select coalesce(least(p_gate.rate_count,
                          p_level + abs(extract(epoch from clock_timestamp() - p_at))
                                    * p_gate.rate_count / p_gate.rate_period),
                    p_gate.rate_count)
$$;

-- The first p_room tasks of a channel without a limit per key: by the rank of the lane, then in the order of arrival.
create function queued_tasks.in_order(
    p_lanes integer[], p_ranks integer[], p_lows bigint[], p_room integer,
    out places tid[], out ranks integer[], out seqs bigint[]
) language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
    select array_agg(h.place), array_agg(h.rank), array_agg(h.seq) into places, ranks, seqs
      from (select y.place, l.rank, y.seq
              from unnest(p_lanes, p_ranks, p_lows) l (lane, rank, low)
             cross join lateral (
                   select r.ctid as place, r.seq from queued_tasks.bundle r
                    where r.lane = l.lane and r.seq > l.low
                      and cardinality(r.ids) = 1 -- or it has come since they were untied
                    order by r.seq limit p_room offset 0) y
             order by l.rank, y.seq
             limit p_room) h;
end $$;

-- The next p_room tasks of a channel with a limit per key: the most urgent lane first, in it one task of each key after
-- the other, beginning behind the key that had the last turn. Tasks without a key take turns as one, and have no limit.
-- All get the seq of the oldest of them: the channel's place among the others is that of its line.
--
-- From key to key is a jump in the index, so the million tasks of one tenant are not walked over. With the collation C the
-- first text behind another is that one with the smallest character added.
create function queued_tasks.in_turn(
    p_gate queued_tasks.gate, p_lanes integer[], p_ranks integer[], p_turn text, p_low bigint, p_room integer,
    out places tid[], out ranks integer[], out seqs bigint[]
) language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_busy   text[];  -- a key for each task that runs, or will
    v_keys   text[];
    v_rooms  integer[];
    v_from   text;
    v_key    text;
    v_room   integer;
    v_around boolean;
    v_places tid[];
    v_seqs   bigint[];
    v_taken  text[];
begin
    places := '{}'; ranks := '{}'; seqs := '{}';
    select coalesce(array_agg(k.key), '{}') into v_busy
      from queued_tasks.token k where k.channel = p_gate.channel and k.seq >= p_low;

    for v_lane in 1 .. cardinality(p_lanes) loop
        v_keys := '{}'; v_rooms := '{}'; v_around := false;
        v_from := p_turn || chr(1);
        while cardinality(v_keys) < p_room - cardinality(places) loop
            select y.key into v_key from queued_tasks.bundle y
             where y.lane = p_lanes[v_lane] and y.key >= v_from order by y.key limit 1;
            if v_key is null or v_around and v_key > p_turn then
                exit when v_around;
                v_around := true;
                v_from := '';
                continue;
            end if;
            v_room := case when v_key = '' then p_room
                           else p_gate.key_cap - cardinality(array_positions(v_busy, v_key)) end;
            if v_room > 0 then
                v_keys := v_keys || v_key;
                v_rooms := v_rooms || v_room;
            end if;
            v_from := v_key || chr(1);
        end loop;

        select array_agg(h.place), array_agg(h.seq), array_agg(h.key) into v_places, v_seqs, v_taken
          from (select y.place, y.seq, k.key
                  from unnest(v_keys, v_rooms) with ordinality k (key, room, turn)
                 cross join lateral (
                       select r.ctid as place, r.seq, row_number() over (order by r.seq) as round
                         from queued_tasks.bundle r
                        where r.lane = p_lanes[v_lane] and r.key = k.key
                        order by r.seq limit least(k.room, p_room) offset 0) y
                 order by y.round, k.turn
                 limit p_room - cardinality(places)) h;
        continue when v_places is null;
        places := places || v_places;
        ranks := ranks || array_fill(p_ranks[v_lane], array[cardinality(v_places)]);
        seqs := seqs || array_fill((select min(u.seq) from unnest(v_seqs) u (seq)), array[cardinality(v_places)]);
        v_busy := v_busy || v_taken;
        exit when cardinality(places) >= p_room;
    end loop;
end $$;

-- Which tasks of limited channels a claim may take: their places in ready, in the order of claiming. `closed`: all lanes of
-- limited channels. `next_in`: seconds until a rate lets another one through. Of these channels nobody else claims until
-- the caller commits.
create function queued_tasks.let_through(
    p_server uuid, p_lanes integer[], p_ranks integer[], p_lows bigint[], p_limit integer,
    out places tid[], out ranks integer[], out seqs bigint[], out closed integer[], out keyed integer[], out next_in float8
) language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_line  record;
    v_gate  queued_tasks.gate;
    v_state queued_tasks.gate_state;
    v_room  integer;
    v_level float8;
    v_head  record;
    v_tied  tid[];
begin
    places := '{}'; ranks := '{}'; seqs := '{}'; closed := '{}'; keyed := '{}';
    for v_line in
        select g.channel, array_agg(l.lane order by l.rank, l.lane) as lanes,
               array_agg(l.rank order by l.rank, l.lane) as ranks, array_agg(l.low order by l.rank, l.lane) as lows
          from unnest(p_lanes, p_ranks, p_lows) l (lane, rank, low)
          join queued_tasks.lane n on n.id = l.lane
          join queued_tasks.gate g on g.channel = n.channel
         group by g.channel
         order by g.channel
    loop
        closed := closed || v_line.lanes;
        select * into v_gate from queued_tasks.gate g where g.channel = v_line.channel;
        if v_gate.key_cap is not null then
            keyed := keyed || v_line.lanes;
        end if;
        continue when v_gate.paused or v_gate.cap = 0;
        continue when not exists (select from unnest(v_line.lanes, v_line.lows) l (lane, low)
                                   cross join lateral (select from queued_tasks.bundle y
                                                        where y.lane = l.lane and y.seq > l.low limit 1) y);
        select * into v_state from queued_tasks.gate_state s where s.channel = v_gate.channel order by s.version desc limit 1;
        -- a full channel is seen without its lock: who makes room in it says so
        continue when queued_tasks.cap_room(v_gate, p_server, coalesce(v_state.low, 0), p_limit) <= 0;

        perform pg_advisory_xact_lock(hashtextextended('queued_tasks.gate ' || v_gate.channel, 0));
        select * into v_state from queued_tasks.gate_state s where s.channel = v_gate.channel order by s.version desc limit 1;
        v_room := queued_tasks.cap_room(v_gate, p_server, coalesce(v_state.low, 0), p_limit);
        if v_gate.rate_count is not null then
            v_level := queued_tasks.rate_room(v_gate, v_state.level, v_state.at);
            v_room := least(v_room, floor(v_level));
            if v_level - v_room < 1 then
                next_in := least(next_in, (1 + v_room - v_level) * v_gate.rate_period / v_gate.rate_count);
            end if;
        end if;
        continue when v_room <= 0;

        if v_gate.key_cap is null then
            -- what came before the channel had limits
            select array_agg(y.place) into v_tied
              from unnest(v_line.lanes, v_line.lows) l (lane, low)
             cross join lateral (
                   select h.place, h.size, sum(h.size) over (order by h.seq rows unbounded preceding) - h.size as before
                     from (select r.ctid as place, r.seq, cardinality(r.ids) as size from queued_tasks.bundle r
                            where r.lane = l.lane and r.seq > l.low
                            order by r.seq limit v_room) h offset 0) y
             where y.size > 1 and y.before < v_room;
            if v_tied is not null then
                perform queued_tasks.untie(v_tied, null);
            end if;
            select * into v_head from queued_tasks.in_order(v_line.lanes, v_line.ranks, v_line.lows, v_room);
        else
            select * into v_head from queued_tasks.in_turn(v_gate, v_line.lanes, v_line.ranks, coalesce(v_state.turn, ''),
                                                           coalesce(v_state.low, 0), v_room);
        end if;
        places := places || v_head.places;
        ranks := ranks || v_head.ranks;
        seqs := seqs || v_head.seqs;
    end loop;
end $$;

-- Whether a claim would take anything, for a server whose workers for these lanes have no room. p_soon: for one that has no
-- such workers; to it a channel that is full just now is as good as one with room, for it will be full whenever one looks.
create function queued_tasks.is_claimable(
    p_server uuid, p_lanes integer[], p_ranks integer[], p_lows bigint[], p_soon boolean
) returns boolean
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_limited record;
begin
    if p_soon then
        return exists (select from unnest(p_lanes, p_lows) l (lane, low)
                        cross join lateral (select n.channel from queued_tasks.lane n where n.id = l.lane offset 0) n
                         left join lateral (select h.paused or h.cap = 0 as closed from queued_tasks.gate h
                                             where h.channel = n.channel offset 0) g on true
                        cross join lateral (select from queued_tasks.bundle y
                                             where y.lane = l.lane and y.seq > l.low order by y.seq limit 1 offset 0) y
                        where g.closed is not true);
    end if;
    perform pg_advisory_xact_lock_shared(hashtextextended('queued_tasks.claim', 0)); -- it may untie bundles
    select * into v_limited from queued_tasks.let_through(p_server, p_lanes, p_ranks, p_lows, 1);
    return cardinality(v_limited.places) > 0
        or exists (select from unnest(p_lanes, p_lows) l (lane, low)
                    cross join lateral (select from queued_tasks.bundle y
                                         where y.lane = l.lane and y.seq > l.low order by y.seq limit 1 offset 0) y
                    where l.lane <> all (v_limited.closed));
end $$;

-- Note what a claim has taken from limited channels.
create function queued_tasks.take_tokens(p_server uuid, p_lease uuid, p_ids uuid[]) returns void
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_taken record;
    v_gate  queued_tasks.gate;
    v_state queued_tasks.gate_state;
    v_place tid;
    v_low   bigint;
begin
    for v_taken in
        with taken as (
            insert into queued_tasks.token (id, channel, key, server, lease)
            select t.id, t.channel, coalesce(t.key, ''), p_server, p_lease
              from unnest(p_ids) u (id)
              join lateral (select * from queued_tasks.task k where k.id = u.id offset 0) t on true
              join queued_tasks.gate g on g.channel = t.channel
            on conflict (id) do update
               set channel = excluded.channel, key = excluded.key, server = excluded.server,
                   lease = excluded.lease, seq = excluded.seq
            returning token.channel, token.key
        )
        select t.channel, array_agg(t.key) as keys, count(*) as count from taken t group by t.channel
    loop
        select * into v_gate from queued_tasks.gate g where g.channel = v_taken.channel;
        select * into v_state from queued_tasks.gate_state s where s.channel = v_gate.channel order by s.version desc limit 1;
        select s.ctid into v_place from queued_tasks.gate_state s
         where s.channel = v_gate.channel and s.version = v_state.version;
        select min(k.seq) into v_low from queued_tasks.token k
         where k.channel = v_gate.channel and k.seq >= coalesce(v_state.low, 0);
        delete from queued_tasks.gate_state s where s.ctid = v_place;
        insert into queued_tasks.gate_state (channel, version, level, at, low, turn)
        values (v_gate.channel, coalesce(v_state.version, 0) + 1,
                queued_tasks.rate_room(v_gate, v_state.level, v_state.at) - v_taken.count, clock_timestamp(), v_low,
                -- once around is behind the last turn
                coalesce((select max(u.key) from unnest(v_taken.keys) u (key) where u.key <= v_state.turn),
                         (select max(u.key) from unnest(v_taken.keys) u (key))));
        -- One that runs for long must not make the count walk over all that came and went meanwhile.
        if currval('queued_tasks.token_seq') - v_low > 20000 then
            update queued_tasks.token k set seq = default
             where k.ctid = any (array(select x.ctid from queued_tasks.token x
                                        where x.channel = v_gate.channel and x.seq < v_low + 10000
                                          for update skip locked));
        end if;
    end loop;
end $$;

-- These tasks are in these leases, one for each, no more: others of their channels may run. What was claimed again meanwhile
-- keeps its token. Returns how many were freed, for those who wait for it.
create function queued_tasks.free_tokens(p_leases uuid[], p_ids uuid[]) returns integer
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_count integer;
begin
    if not exists (select from queued_tasks.gate) then
        return 0;
    end if;
    delete from queued_tasks.token k
     using (select x.lease, x.id from unnest(p_leases, p_ids) x (lease, id) order by x.id) u
     where k.id = u.id and k.lease = u.lease;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- Whether a channel has limits, or somebody wants it to have none. Volatile: it is to see what was committed while its
-- caller waited.
create function queued_tasks.is_set(p_channel text) returns boolean
language plpgsql
as $$
begin
    return exists (select from queued_tasks.gate g where g.channel = p_channel)
        or exists (select from queued_tasks.lifted f where f.channel = p_channel);
end $$;

-- Set the limits of a channel; without any it has no gate. p_seed: only if it has none yet, and nobody has lifted any. What
-- runs in it already counts. Waits for claims that are under way, and for settlements. Returns whether anything was set.
create function queued_tasks.set_gate(
    p_channel text, p_cap integer, p_per_server boolean, p_key_cap integer, p_rate_count integer, p_rate_period float8,
    p_paused boolean, p_seed boolean
) returns boolean
language plpgsql
set jit = off set enable_hashjoin = off set enable_mergejoin = off
set lock_timeout = '10s'
as $$
begin
    if p_seed and queued_tasks.is_set(p_channel) then
        return false;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('queued_tasks.claim', 0));
    if p_seed and queued_tasks.is_set(p_channel) then
        return false;  -- somebody set it while this waited
    end if;
    if p_cap is null and p_key_cap is null and p_rate_count is null and not p_paused then
        delete from queued_tasks.gate g where g.channel = p_channel;
        delete from queued_tasks.token k where k.channel = p_channel;
        delete from queued_tasks.gate_state s where s.channel = p_channel;
        if not p_seed then
            insert into queued_tasks.lifted (channel) values (p_channel) on conflict do nothing;
        end if;
        return true;
    end if;
    delete from queued_tasks.lifted f where f.channel = p_channel;
    insert into queued_tasks.gate (channel, cap, per_server, key_cap, rate_count, rate_period, paused)
    values (p_channel, p_cap, p_per_server, p_key_cap, p_rate_count, p_rate_period, p_paused)
    on conflict (channel) do update
       set cap = excluded.cap, per_server = excluded.per_server, key_cap = excluded.key_cap,
           rate_count = excluded.rate_count, rate_period = excluded.rate_period, paused = excluded.paused,
           changed_at = now();

    -- A settlement that has looked for gates before this one was there holds its leases until it is over.
    perform 1 from queued_tasks.lease l order by l.id for update;
    insert into queued_tasks.token (id, channel, key, server, lease)
    select r.id, t.channel, coalesce(t.key, ''), r.server, r.lease
      from queued_tasks.running r
      join lateral (select * from queued_tasks.task k where k.id = r.id offset 0) t on true
     where t.channel = p_channel
    on conflict (id) do nothing;
    perform queued_tasks.add_keys(10000);
    return true;
end $$;

-- Tasks without a key that stood in line before their channel got a limit per key take turns from now on, too. Returns how
-- many there were. Who added one while that changed may commit a little later: so it looks again for a while.
create function queued_tasks.add_keys(p_limit integer) returns integer
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_places tid[];
    v_count  integer;
begin
    select array_agg(h.place), sum(h.size) into v_places, v_count
      from (select r.place, r.size, sum(r.size) over (order by l.id, r.seq rows unbounded preceding) - r.size as before
              from queued_tasks.gate g
              join queued_tasks.lane l on l.channel = g.channel
             cross join lateral (
                   select x.ctid as place, x.seq, cardinality(x.ids) as size from queued_tasks.bundle x
                    where x.lane = l.id and x.key is null order by x.seq limit p_limit) r
             where g.key_cap is not null and g.changed_at > now() - interval '5 minutes') h
     where h.before < p_limit;
    if v_places is null then
        return 0;
    end if;
    perform queued_tasks.untie(v_places, '');
    update queued_tasks.gate g set changed_at = now() where g.key_cap is not null;
    return v_count;
end $$;

-- Tokens of tasks that no lease holds, should there ever be any. Returns how many.
create function queued_tasks.sweep_tokens() returns integer
language plpgsql as $$
declare
    v_ids uuid[];
begin
    if not queued_tasks.begin_duty('sweep') then
        return 0;
    end if;
    select array_agg(k.id) into v_ids from queued_tasks.token k
     where not exists (select from queued_tasks.lease l where l.id = k.lease and k.id = any (l.ids));
    if v_ids is null then
        return 0;
    end if;
    -- a claim that is under way has its tokens and its lease at once
    perform pg_advisory_xact_lock(hashtextextended('queued_tasks.claim', 0));
    delete from queued_tasks.token k
     where k.id = any (v_ids)
       and not exists (select from queued_tasks.lease l where l.id = k.lease and k.id = any (l.ids));
    return cardinality(v_ids);
end $$;
