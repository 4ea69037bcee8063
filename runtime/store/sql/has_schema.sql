select to_regclass('queued_tasks.migration') is not null
