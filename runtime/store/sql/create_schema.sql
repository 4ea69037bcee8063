create schema if not exists queued_tasks;
create table queued_tasks.migration (
    version    integer     primary key,
    name       text        not null,
    applied_at timestamptz not null default now()
);
