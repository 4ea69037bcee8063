select version from queued_tasks.migration
