-- Three roles that may do no more than they need. Run this as the owner of the schema, and again after each
-- `queued-tasks migrate`; then grant them to the users that you connect as, such as: grant queued_tasks_server to worker;
--
--   queued_tasks_enqueuer    adds, cancels, stops and retries tasks, and reads: web applications, plain SQL
--   queued_tasks_server      runs tasks, and whatever the command line does but `migrate`
--   queued_tasks_dashboard   reads
--
-- Arguments, results and logs are readable for all three.
do $$
declare
    v_role text;
begin
    foreach v_role in array array['queued_tasks_enqueuer', 'queued_tasks_server', 'queued_tasks_dashboard'] loop
        begin
            execute format('create role %I nologin', v_role);
        exception when duplicate_object or unique_violation then
            null;
        end;
    end loop;
end $$;

revoke execute on all functions in schema queued_tasks from public;
grant usage on schema queued_tasks to queued_tasks_enqueuer, queued_tasks_server, queued_tasks_dashboard;
grant select on all tables in schema queued_tasks to queued_tasks_enqueuer, queued_tasks_server, queued_tasks_dashboard;

-- The enqueuer writes through these functions, which run as the owner of the schema, and not otherwise: it can neither
-- make up results nor change what others have added.
do $$
declare
    v_function regprocedure;
begin
    for v_function in
        select p.oid from pg_proc p
         where p.pronamespace = 'queued_tasks'::regnamespace
           and p.proname in ('add_tasks', 'post_tasks', 'cancel_tasks', 'stop_tasks', 'resume_tasks', 'enqueue', 'cancel',
                             'have_read', 'write_note')
    loop
        execute format('alter function %s security definer set search_path = pg_catalog, pg_temp', v_function);
        execute format('grant execute on function %s to queued_tasks_enqueuer', v_function);
    end loop;
end $$;
grant insert on queued_tasks.lane to queued_tasks_enqueuer;
grant insert, update, delete on queued_tasks.waiter to queued_tasks_enqueuer;

grant insert, update, delete on all tables in schema queued_tasks to queued_tasks_server;
revoke insert, update, delete on queued_tasks.migration from queued_tasks_server;
grant usage on all sequences in schema queued_tasks to queued_tasks_server;
grant execute on all functions in schema queued_tasks to queued_tasks_server;

do $$
declare
    v_function regprocedure;
begin
    for v_function in
        select p.oid from pg_proc p
         where p.pronamespace = 'queued_tasks'::regnamespace and p.proname in ('get_ends', 'get_progress', 'backlog', 'rate_room', 'is_running')
    loop
        execute format('grant execute on function %s to queued_tasks_enqueuer, queued_tasks_dashboard', v_function);
    end loop;
end $$;
