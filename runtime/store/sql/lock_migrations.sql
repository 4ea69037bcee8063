-- until the end of the transaction: one migrates, the others wait
select pg_advisory_xact_lock(hashtextextended('queued_tasks.migrate', 0))
