-- Channels with limits. Their tasks stand in line like all others; the claim lets through what the limits leave room for.
--
--   gate        the limits of a channel; one without a row has none
--   lifted      the channels whose limits somebody has lifted: no server gives them others when it starts
--   token       what runs in a limited channel: a row for each task from its claim until its lease lets go of it
--   gate_state  how far the rate's bucket is filled, and where to start reading: versions are appended and read newest
--               first, because a row updated in place decays while vacuum is held back
--   turn        where there is a limit per key: the keys that have tasks in a line, in the order in which they take turns
--   newcomer    and the keys for which tasks have come, until a claim sees to it that they have a turn
--
-- Both are read from a low-water on, as lines are: to go by the keys in the lines themselves would be to walk over all that
-- was claimed of each while vacuum is held back. Turns are given and taken by claims alone, one after the other.
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
    turns   jsonb       not null,
    primary key (channel, version)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on column queued_tasks.gate_state.level is 'tasks that may start now, at `at`; null: as many as the rate allows at most';
comment on column queued_tasks.gate_state.low is 'no token of the channel has a smaller seq';
comment on column queued_tasks.gate_state.turns is 'by lane: no key has a turn there with this seq or a smaller one';

create sequence queued_tasks.turn_seq cache 1;
select setval('queued_tasks.turn_seq', 1); -- the low-water of who has read nothing, as 0 means more: see in_turn

create table queued_tasks.turn (
    lane integer not null,
    seq  bigint  not null default nextval('queued_tasks.turn_seq'),
    key  text    not null collate "C",
    low  bigint  not null,
    primary key (lane, seq)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index turn_key on queued_tasks.turn (lane, key, seq);
comment on column queued_tasks.turn.low is 'no task of the key stands in the line with this seq or a smaller one';

create table queued_tasks.newcomer (
    lane  integer not null,
    seq   bigint  not null default nextval('queued_tasks.turn_seq'),
    key   text    not null collate "C",
    first bigint  not null,
    primary key (lane, seq)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
comment on column queued_tasks.newcomer.first is 'the smallest seq of the tasks that have come';

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

-- Note keys that have tasks in these lines and no turn as newcomers. From key to key is a jump in the index: with the
-- collation C the first text behind another is that one with the smallest character added. At most p_most keys of each
-- line are looked at, from p_from on; returns how many.
create function queued_tasks.find_keys(p_lanes integer[], p_turn bigint, p_from text, p_most integer) returns integer
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_count integer;
begin
    with recursive head (lane, key, seq, count) as (
        select l.lane, y.key, y.seq, 1
          from unnest(p_lanes) l (lane)
         cross join lateral (select b.key, b.seq from queued_tasks.bundle b
                              where b.lane = l.lane and b.key >= p_from order by b.key, b.seq limit 1) y
        union all
        select h.lane, y.key, y.seq, h.count + 1
          from head h
         cross join lateral (select b.key, b.seq from queued_tasks.bundle b
                              where b.lane = h.lane and b.key >= h.key || chr(1) order by b.key, b.seq limit 1) y
         where p_most is null or h.count < p_most
    ), come as (
        insert into queued_tasks.newcomer (lane, key, first)
        select h.lane, h.key, h.seq
          from head h
         where not exists (select from queued_tasks.turn t
                            where t.lane = h.lane and t.key = h.key and t.seq > p_turn and t.low < h.seq offset 0)
    )
    select count(*) into v_count from head;
    return v_count;
end $$;

-- Give newcomers with a seq above p_after their turns, behind all others; p_turn is the low-water of turns. Returns the seq
-- of the last of them, null for none.
create function queued_tasks.give_turns(p_lane integer, p_after bigint, p_turn bigint) returns bigint
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_places tid[];
    v_last   bigint;
begin
    select array_agg(n.place), max(n.seq) into v_places, v_last
      from (select x.ctid as place, x.seq from queued_tasks.newcomer x
             where x.lane = p_lane and x.seq > p_after order by x.seq limit 1000) n;
    if v_places is null then
        return null;
    end if;
    with come as (
        delete from queued_tasks.newcomer n where n.ctid = any (v_places) returning n.seq, n.key, n.first
    ), known as materialized (
        select k.key, k.seq, k.first, t.place, t.low
          from (select c.key, min(c.seq) as seq, min(c.first) as first from come c group by c.key) k
          left join lateral (select x.ctid as place, x.low from queued_tasks.turn x
                              where x.lane = p_lane and x.key = k.key and x.seq > p_turn order by x.seq limit 1) t on true
    ), lower as (
        update queued_tasks.turn t set low = k.first - 1 from known k where t.ctid = k.place and k.first <= k.low
    )
    insert into queued_tasks.turn (lane, key, low)
    select p_lane, k.key, k.first - 1 from known k where k.place is null order by k.seq;
    return v_last;
end $$;

-- Look for keys in a line whose newcomers have their turns: somebody may have added tasks who did not know yet that newcomers
-- are wanted. Of very many keys it looks at some, others each time. p_turn and p_last: between these are the turns.
create function queued_tasks.learn_keys(p_lane integer, p_turn bigint, p_last bigint) returns void
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_turn bigint := p_turn + floor(random() * (p_last - p_turn));
    v_key  text;
begin
    select t.key into v_key from queued_tasks.turn t
     where t.lane = p_lane and t.seq > v_turn order by t.seq limit 1;
    if queued_tasks.find_keys(array[p_lane], p_turn, '', 10000) = 10000 and v_key is not null then
        perform queued_tasks.find_keys(array[p_lane], p_turn, v_key, 10000);
    end if;
end $$;

-- The next p_room tasks of a channel with a limit per key: the most urgent lane first, in it one task of each key after
-- the other, in the order of their turns. Tasks without a key take turns as one, and have no limit. All get the seq of the
-- oldest of them: the channel's place among the others is that of its line.
--
-- p_lows are those of the claim. Below zero they are how far it has read the newcomers of a lane, -1 for not at all; any
-- other is of a time when there was no limit per key, and has it look for keys in the line as well. `come`: the last
-- newcomer of each lane, null where none has come.
create function queued_tasks.in_turn(
    p_gate queued_tasks.gate, p_lanes integer[], p_ranks integer[], p_lows bigint[], p_turns bigint[], p_low bigint,
    p_room integer, out places tid[], out ranks integer[], out seqs bigint[], out come bigint[]
) language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_until  timestamptz := clock_timestamp() + interval '100 ms';  -- for newcomers
    v_busy   jsonb;   -- how many tasks of each key run, or will
    v_from   bigint;  -- how far the newcomers were read
    v_anew   boolean;
    v_known  bigint;
    v_last   bigint;
    v_after  bigint;  -- how far the turns were read
    v_turn   bigint;
    v_turns  tid[];
    v_keys   text[];
    v_lows   bigint[];
    v_rooms  integer[];
    v_places tid[];
    v_seqs   bigint[];
    v_taken  text[];
begin
    places := '{}'; ranks := '{}'; seqs := '{}';
    come := array_fill(null::bigint, array[cardinality(p_lanes)]);
    select coalesce(jsonb_object_agg(k.key, k.count), '{}') into v_busy
      from (select x.key, count(*) as count from queued_tasks.token x
             where x.channel = p_gate.channel and x.seq >= p_low group by x.key) k;

    for v_lane in 1 .. cardinality(p_lanes) loop
        exit when cardinality(places) >= p_room;
        v_from := greatest(-p_lows[v_lane], 0);
        v_anew := v_from = 0;
        v_known := (select s.last_value from queued_tasks.turn_seq s);
        v_after := p_turns[v_lane];
        loop
            -- all that are there: one key may have come very often
            loop
                v_last := queued_tasks.give_turns(p_lanes[v_lane], v_from, p_turns[v_lane]);
                v_from := coalesce(v_last, v_from);
                come[v_lane] := coalesce(v_last, come[v_lane]);
                if v_anew and (v_last is null or v_from >= v_known) then
                    v_anew := false;
                    come[v_lane] := coalesce(come[v_lane], v_known);
                    perform queued_tasks.learn_keys(p_lanes[v_lane], p_turns[v_lane], v_known);
                    v_known := (select s.last_value from queued_tasks.turn_seq s);
                else
                    exit when v_last is null or v_from >= v_known or clock_timestamp() > v_until;
                end if;
            end loop;
            loop
                select array_agg(h.place), array_agg(h.key), array_agg(h.low), array_agg(h.room), max(h.seq)
                  into v_turns, v_keys, v_lows, v_rooms, v_turn
                  from (select t.ctid as place, t.seq, t.key, t.low, r.room
                          from queued_tasks.turn t
                         cross join lateral (
                               select case when t.key = '' then p_room
                                      else p_gate.key_cap - coalesce((v_busy ->> t.key)::integer, 0) end) r (room)
                         where t.lane = p_lanes[v_lane] and t.seq > v_after and r.room > 0
                         order by t.seq limit p_room - cardinality(places)) h;
                exit when v_turns is null;
                v_after := v_turn;

                select array_agg(h.place), array_agg(h.seq), array_agg(h.key) into v_places, v_seqs, v_taken
                  from (select y.place, y.seq, k.key
                          from unnest(v_keys, v_lows, v_rooms) with ordinality k (key, low, room, turn)
                         cross join lateral (
                               select r.ctid as place, r.seq, row_number() over (order by r.seq) as round
                                 from queued_tasks.bundle r
                                where r.lane = p_lanes[v_lane] and r.key = k.key and r.seq > k.low
                                order by r.seq limit least(k.room, p_room) offset 0) y
                         order by y.round, k.turn
                         limit p_room - cardinality(places)) h;
                if v_taken is null or not v_keys <@ v_taken then
                    delete from queued_tasks.turn t
                     where t.ctid = any (array(select k.place from unnest(v_turns, v_keys) k (place, key)
                                                where v_taken is null or k.key <> all (v_taken)));
                end if;
                continue when v_places is null;
                places := places || v_places;
                ranks := ranks || array_fill(p_ranks[v_lane], array[cardinality(v_places)]);
                seqs := seqs || array_fill((select min(u.seq) from unnest(v_seqs) u (seq)), array[cardinality(v_places)]);
                v_busy := v_busy || (
                    select jsonb_object_agg(k.key, k.count + coalesce((v_busy ->> k.key)::integer, 0))
                      from (select u.key, count(*) as count from unnest(v_taken) u (key) group by u.key) k);
                exit when cardinality(places) >= p_room;
            end loop;
            exit when v_last is null or v_from >= v_known or cardinality(places) >= p_room;
        end loop;
        if v_anew then
            come[v_lane] := null;  -- there were too many to look for keys in the line as well
        end if;
    end loop;
end $$;

-- The low-waters of turns in these lanes of a channel.
create function queued_tasks.turns_of(p_state queued_tasks.gate_state, p_lanes integer[]) returns bigint[]
language sql immutable
as $$
    select array_agg(coalesce((p_state.turns ->> l.lane::text)::bigint, 0) order by l.place)
      from unnest(p_lanes) with ordinality l (lane, place)
$$;

-- Whether anything seems to stand in lines of one channel; p_keyed: it has a limit per key, so p_lows and p_turns are as
-- in_turn wants them.
create function queued_tasks.is_lined(p_keyed boolean, p_lanes integer[], p_lows bigint[], p_turns bigint[]) returns boolean
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
    return exists (select from unnest(p_lanes, p_lows, p_turns) l (lane, low, turn)
                    where case when p_keyed and l.low < 0
                               then exists (select from queued_tasks.turn t where t.lane = l.lane and t.seq > l.turn offset 0)
                                    or exists (select from queued_tasks.newcomer n
                                                where n.lane = l.lane and n.seq > -l.low offset 0)
                               else exists (select from queued_tasks.bundle y
                                             where y.lane = l.lane and y.seq > l.low order by y.seq limit 1 offset 0) end);
end $$;

-- Which tasks of limited channels a claim may take: their places in ready, in the order of claiming. `closed`: all lanes of
-- limited channels. `keyed`: those where keys take turns, `come`: see in_turn. `next_in`: seconds until a rate lets another
-- one through. Of these channels nobody else claims until the caller commits.
create function queued_tasks.let_through(
    p_server uuid, p_lanes integer[], p_ranks integer[], p_lows bigint[], p_limit integer,
    out places tid[], out ranks integer[], out seqs bigint[], out closed integer[], out keyed integer[], out come bigint[],
    out next_in float8
) language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_line  record;
    v_gate  queued_tasks.gate;
    v_state queued_tasks.gate_state;
    v_last  bigint;
    v_old   boolean;
    v_room  integer;
    v_level float8;
    v_head  record;
    v_tied  tid[];
begin
    places := '{}'; ranks := '{}'; seqs := '{}'; closed := '{}'; keyed := '{}'; come := '{}';
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
        continue when v_gate.paused or v_gate.cap = 0;
        select * into v_state from queued_tasks.gate_state s where s.channel = v_gate.channel order by s.version desc limit 1;
        -- a full channel is seen without its lock: who makes room in it says so
        continue when queued_tasks.cap_room(v_gate, p_server, coalesce(v_state.low, 0), p_limit) <= 0;
        v_last := (select s.last_value from queued_tasks.turn_seq s);
        if not queued_tasks.is_lined(v_gate.key_cap is not null, v_line.lanes, v_line.lows,
                                     queued_tasks.turns_of(v_state, v_line.lanes)) then
            if v_gate.key_cap is not null then
                -- Who looked from the start has seen that there is nothing to learn, unless somebody may still be adding
                -- tasks who does not know of the limit.
                keyed := keyed || v_line.lanes;
                v_old := v_gate.changed_at < now() - interval '1 minute';
                come := come || array(select case when l.low = 0 and v_old then v_last end
                                        from unnest(v_line.lows) with ordinality l (low, place) order by l.place);
            end if;
            continue;
        end if;

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
            select * into v_head from queued_tasks.in_turn(v_gate, v_line.lanes, v_line.ranks, v_line.lows,
                                                           queued_tasks.turns_of(v_state, v_line.lanes),
                                                           coalesce(v_state.low, 0), v_room);
            keyed := keyed || v_line.lanes;
            come := come || v_head.come;
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
                         left join lateral (select h.paused or h.cap = 0 as closed, h.key_cap is not null as keyed
                                              from queued_tasks.gate h where h.channel = n.channel offset 0) g on true
                         left join lateral (select s from queued_tasks.gate_state s
                                             where s.channel = n.channel order by s.version desc limit 1) s (state) on true
                        where g.closed is not true
                          and queued_tasks.is_lined(coalesce(g.keyed, false), array[l.lane], array[l.low],
                                                    queued_tasks.turns_of(s.state, array[l.lane])));
    end if;
    perform pg_advisory_xact_lock_shared(hashtextextended('queued_tasks.claim', 0)); -- it may untie bundles
    select * into v_limited from queued_tasks.let_through(p_server, p_lanes, p_ranks, p_lows, 1);
    return cardinality(v_limited.places) > 0
        or exists (select from unnest(p_lanes, p_lows) l (lane, low)
                    cross join lateral (select from queued_tasks.bundle y
                                         where y.lane = l.lane and y.seq > l.low order by y.seq limit 1 offset 0) y
                    where l.lane <> all (v_limited.closed));
end $$;

-- The keys of which a claim has taken these tasks, from one lane of a channel, go behind all others there, if any of theirs
-- are left; p_turn and p_low are the low-waters of turns and tokens. Returns the next one of turns.
create function queued_tasks.pass_turns(p_gate queued_tasks.gate, p_lane integer, p_ids uuid[], p_turn bigint, p_low bigint)
returns bigint
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_first bigint;
    v_last  bigint;
begin
    with served as materialized (
        select distinct coalesce(t.key, '') as key
          from unnest(p_ids) u (id)
         cross join lateral (select k.key from queued_tasks.task k where k.id = u.id offset 0) t
    ), had as materialized (
        select s.key, t.place, t.seq, t.low
          from served s
         cross join lateral (select x.ctid as place, x.seq, x.low from queued_tasks.turn x
                              where x.lane = p_lane and x.key = s.key and x.seq > p_turn order by x.seq limit 1) t
    ), gone as (
        delete from queued_tasks.turn t where t.ctid = any (array(select h.place from had h))
    )
    insert into queued_tasks.turn (lane, key, low)
    select p_lane, h.key, y.seq - 1
      from had h
     cross join lateral (select b.seq from queued_tasks.bundle b
                          where b.lane = p_lane and b.key = h.key and b.seq > h.low order by b.seq limit 1) y
     order by h.seq;

    select t.seq into v_first from queued_tasks.turn t
     where t.lane = p_lane and t.seq > p_turn order by t.seq limit 1;
    select s.last_value into v_last from queued_tasks.turn_seq s;
    if v_last - v_first > 20000 then
        -- Keys that may not start for long must not make others walk over all that had their turns meanwhile.
        with first as materialized (
            select x.ctid as place, x.key from queued_tasks.turn x
             where x.lane = p_lane and x.seq > p_turn order by x.seq limit 100
        ), gone as (
            delete from queued_tasks.turn t
             where t.ctid = any (array(
                   select f.place from first f
                    where f.key <> '' and f.key in (
                          select k.key from queued_tasks.token k
                           where k.channel = p_gate.channel and k.seq >= p_low
                           group by k.key having count(*) >= p_gate.key_cap)))
            returning t.seq, t.key, t.low
        )
        insert into queued_tasks.turn (lane, key, low)
        select p_lane, g.key, g.low from gone g order by g.seq;
    end if;
    return coalesce(v_first - 1, v_last);
end $$;

-- Note what a claim has taken from limited channels: these tasks, from these lanes.
create function queued_tasks.take_tokens(p_server uuid, p_lease uuid, p_lanes integer[], p_ids uuid[]) returns void
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
            returning token.channel
        )
        select t.channel, count(*) as count from taken t group by t.channel
    loop
        select * into v_gate from queued_tasks.gate g where g.channel = v_taken.channel;
        select * into v_state from queued_tasks.gate_state s where s.channel = v_gate.channel order by s.version desc limit 1;
        select s.ctid into v_place from queued_tasks.gate_state s
         where s.channel = v_gate.channel and s.version = v_state.version;
        select min(k.seq) into v_low from queued_tasks.token k
         where k.channel = v_gate.channel and k.seq >= coalesce(v_state.low, 0);
        delete from queued_tasks.gate_state s where s.ctid = v_place;
        insert into queued_tasks.gate_state (channel, version, level, at, low, turns)
        values (v_gate.channel, coalesce(v_state.version, 0) + 1,
                queued_tasks.rate_room(v_gate, v_state.level, v_state.at) - v_taken.count, clock_timestamp(), v_low,
                coalesce(v_state.turns, '{}') || (
                select coalesce(jsonb_object_agg(l.lane, queued_tasks.pass_turns(v_gate, l.lane, l.ids, l.turn, v_low)), '{}')
                  from (select u.lane, array_agg(u.id) as ids, coalesce((v_state.turns ->> u.lane::text)::bigint, 0) as turn
                          from unnest(p_lanes, p_ids) u (lane, id)
                          join queued_tasks.lane n on n.id = u.lane
                         where n.channel = v_gate.channel and v_gate.key_cap is not null
                         group by u.lane) l));
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
    -- no join: one begins with all tokens where there were none when it was planned
    delete from queued_tasks.token k
     where k.id = any (p_ids)
       and ((k.lease, k.id) in (select u.lease, u.id from unnest(p_leases, p_ids) u (lease, id))) is true;
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
declare
    v_lanes integer[];
begin
    if p_seed and queued_tasks.is_set(p_channel) then
        return false;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('queued_tasks.claim', 0));
    if p_seed and queued_tasks.is_set(p_channel) then
        return false;  -- somebody set it while this waited
    end if;
    v_lanes := array(select l.id from queued_tasks.lane l where l.channel = p_channel);
    if p_key_cap is null then
        delete from queued_tasks.newcomer n where n.lane = any (v_lanes);
        delete from queued_tasks.turn t where t.lane = any (v_lanes);
    elsif not exists (select from queued_tasks.gate g where g.channel = p_channel and g.key_cap is not null) then
        perform queued_tasks.find_keys(v_lanes, 0, '', null);
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

-- Remove tokens of tasks that no lease holds, should there ever be any, and newcomers that nobody waits for. Returns how many
-- tokens there were.
create function queued_tasks.sweep_tokens() returns integer
language plpgsql as $$
declare
    v_ids   uuid[];
    v_lanes integer[];
begin
    if not queued_tasks.begin_duty('sweep') then
        return 0;
    end if;
    select array_agg(k.id) into v_ids from queued_tasks.token k
     where not exists (select from queued_tasks.lease l where l.id = k.lease and k.id = any (l.ids));
    select array_agg(l.id) into v_lanes from queued_tasks.lane l
     where not exists (select from queued_tasks.gate g where g.channel = l.channel and g.key_cap is not null)
       and exists (select from queued_tasks.newcomer n where n.lane = l.id offset 0);
    if v_ids is null and v_lanes is null then
        return 0;
    end if;
    -- a claim that is under way has its tokens and its lease at once
    perform pg_advisory_xact_lock(hashtextextended('queued_tasks.claim', 0));
    delete from queued_tasks.token k
     where k.id = any (v_ids)
       and not exists (select from queued_tasks.lease l where l.id = k.lease and k.id = any (l.ids));
    -- of who did not know yet that a limit per key was lifted
    delete from queued_tasks.newcomer n
     where n.lane = any (v_lanes)
       and not exists (select from queued_tasks.lane l
                         join queued_tasks.gate g on g.channel = l.channel
                        where l.id = n.lane and g.key_cap is not null);
    return coalesce(cardinality(v_ids), 0);
end $$;
