-- the rights that a server needs and this user lacks, such as `insert on lease`
with lacking as (
    select 'usage on the schema' as right where not has_schema_privilege('queued_tasks'::regnamespace, 'usage')
    union all
    select p.name || ' on ' || c.relname
      from pg_class c cross join unnest(array['select', 'insert', 'update', 'delete']) p (name)
     where c.relnamespace = 'queued_tasks'::regnamespace and c.relkind = 'r' and not has_table_privilege(c.oid, p.name)
       and not (c.relname = 'migration' and p.name <> 'select')
    union all
    select 'execute on ' || f.proname
      from pg_proc f
     where f.pronamespace = 'queued_tasks'::regnamespace and not has_function_privilege(f.oid, 'execute')
)
select l.right from lacking l order by 1
