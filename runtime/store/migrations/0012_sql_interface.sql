-- Tasks from plain SQL, for whoever speaks no Python. What is done here takes effect with the commit of the caller's
-- transaction, and goes with its rollback.

-- A UUIDv7 (RFC 9562, method 3): milliseconds, then their 4096th parts, then chance. PostgreSQL has its own from 18 on.
create function queued_tasks.make_id() returns uuid
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select encode(overlay(uuid_send(gen_random_uuid())
                          placing int8send((t.us / 1000 << 16) | 28672 | (t.us % 1000 * 4096 / 1000)) from 1 for 8),
                  'hex')::uuid
      from (select (extract(epoch from clock_timestamp()) * 1000000)::bigint as us) t
$$;

-- Refuse bad input in the words of the caller.
create function queued_tasks.refuse(p_what text, p_hint text) returns void
language plpgsql as $$
begin
    raise exception '%', p_what using errcode = 'invalid_parameter_value', hint = p_hint;
end $$;

-- Add a task for the function `module:name`. Returns its id: with a unique key that is taken, that of the task that has
-- it. Whether the function is async is unknown here, so the task goes to the async workers, which run a plain function
-- on a thread. The task is not signed.
create function queued_tasks.enqueue(
    function text, args jsonb default '[]', kwargs jsonb default '{}', channel text default null, priority integer default 0,
    run_at timestamptz default null, unique_key text default null, max_retries integer default null
) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    v_id    uuid := queued_tasks.make_id();
    v_taken text;
begin
    if function is null or function !~ '^[^:\s]+:[^:\s]+$' then
        perform queued_tasks.refuse(format('function is %L', left(function, 60)),
                                    'Write it as module:name, for example app.tasks:send_email.');
    elsif args is null or jsonb_typeof(args) <> 'array' then
        perform queued_tasks.refuse(format('args is %L', left(args::text, 60)), 'Give a JSON array, for example ''["a@b.c"]''.');
    elsif kwargs is null or jsonb_typeof(kwargs) <> 'object' then
        perform queued_tasks.refuse(format('kwargs is %L', left(kwargs::text, 60)),
                                    'Give a JSON object, for example ''{"to": "a@b.c"}''.');
    elsif octet_length(args::text) + octet_length(kwargs::text) > 1048576 then
        perform queued_tasks.refuse('args and kwargs take more than 1 MiB',
                                    'Keep the most of it in a table, and give the task its key.');
    elsif length(channel) not between 1 and 100 then
        perform queued_tasks.refuse(format('channel is %L', left(channel, 60)), 'Give a text of 1 to 100 characters.');
    elsif priority is null or priority not between -32768 and 32767 then
        perform queued_tasks.refuse(format('priority is %L', priority), 'Give a whole number from -32768 to 32767.');
    elsif length(unique_key) not between 1 and 500 then
        perform queued_tasks.refuse(format('unique_key is %L', left(unique_key, 60)), 'Give a text of 1 to 500 characters.');
    elsif max_retries not between 0 and 32767 then
        perform queued_tasks.refuse(format('max_retries is %L', max_retries), 'Give a whole number from 0 to 32767.');
    end if;

    v_taken := queued_tasks.post_tasks(json_build_array(json_build_object(
        'id', v_id, 'function', function, 'executor', 0, 'args', args::text, 'kwargs', nullif(kwargs, '{}')::text,
        'channel', coalesce(channel, 'default'), 'priority', priority, 'run_at', run_at, 'unique_key', unique_key,
        'max_retries', coalesce(max_retries, 3), 'timeout', 300, 'auto_remove', false))::text);
    return coalesce((v_taken::json ->> v_id::text)::uuid, v_id);
end $$;

-- Cancel a task. False when it has ended already. To cancel holds back all claims to the end of the transaction, which is
-- the caller's and may be a long one: so it is left to servers once the caller has committed, also to those yet to come.
create function queued_tasks.cancel(id uuid) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if cancel.id is null or not exists (select from queued_tasks.task t where t.id = cancel.id) then
        raise exception 'there is no task %', cancel.id
            using errcode = 'no_data_found', hint = 'It never was, or was removed when it was done.';
    elsif exists (select from queued_tasks.result r where r.id = cancel.id) then
        return false;
    end if;
    insert into queued_tasks.inbox (id, cancel) values (cancel.id, true);
    perform queued_tasks.announce_inbox(true);
    return true;
end $$;
