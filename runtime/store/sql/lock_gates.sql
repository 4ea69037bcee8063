-- Whoever changes limits by what they are does so one after the other.
select pg_advisory_xact_lock(hashtextextended('queued_tasks.gates', 0))
