-- What a server was started with, as far as it has to be alike everywhere: so that differences can be found.
alter table queued_tasks.server add column settings json not null default '{}';

-- What somebody wants of a server stands in its row: the server reads it on every beat, so a wish can't get lost, and to
-- repeat it changes nothing. A fresh incarnation of the same process takes it over: see register.
alter table queued_tasks.server
    add column intent text not null default 'run' check (intent in ('run', 'drain', 'stop')),
    add column wanted_workers integer check (wanted_workers between 1 and 1024);
comment on column queued_tasks.server.intent is
    'run: take tasks; drain: finish what runs, take no more, stay up; stop: leave as after SIGTERM, which is not taken back';
comment on column queued_tasks.server.wanted_workers is 'null: as many as it was started with';

-- Want something of servers; null leaves that part as it was. Returns those that are there and have not been told to stop.
create function queued_tasks.direct_servers(p_servers uuid[], p_intent text, p_workers integer) returns setof uuid
language plpgsql as $$
begin
    -- One that is given up at this moment is passed on to its next incarnation with the wish, or is not there for us.
    perform 1 from queued_tasks.heartbeat h where h.server = any (p_servers) order by h.server for key share;
    return query
    update queued_tasks.server s
       set intent = coalesce(p_intent, s.intent), wanted_workers = coalesce(p_workers, s.wanted_workers)
     where s.id = any (p_servers) and s.intent <> 'stop'
       and exists (select from queued_tasks.heartbeat h where h.server = s.id)
    returning s.id;
end $$;
