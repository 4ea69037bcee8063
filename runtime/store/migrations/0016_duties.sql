-- Upkeep has no leader. Whoever finds a duty due takes it for its period; if he dies over it, somebody else takes it in the
-- next one. And within a period, a lock keeps two from doing it at the same time: see begin_duty.
create table queued_tasks.duty (
    name     text        primary key,
    taken_at timestamptz not null
);

-- Take a duty that is to be done every p_every seconds. False: somebody else has done it, or is about to.
create function queued_tasks.take_duty(p_name text, p_every float8) returns boolean
language plpgsql as $$
begin
    if not pg_try_advisory_xact_lock(hashtextextended('queued_tasks.duty ' || p_name, 0)) then
        return false;
    end if;
    insert into queued_tasks.duty as d (name, taken_at) values (p_name, clock_timestamp())
    on conflict (name) do update set taken_at = clock_timestamp()
     where d.taken_at not between clock_timestamp() - p_every * interval '1 second' and clock_timestamp();
    return found;
end $$;

-- Begin a piece of a duty, for as long as the transaction lasts. False: somebody else is at it.
create function queued_tasks.begin_duty(p_name text) returns boolean
language sql as $$
    select pg_try_advisory_xact_lock(hashtextextended('queued_tasks.doing ' || p_name, 0))
$$;
