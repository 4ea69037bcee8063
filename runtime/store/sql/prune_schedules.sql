-- $1 retention in seconds: removes schedules that no server has declared for as long
delete from queued_tasks.schedule s where s.seen_at < clock_timestamp() - $1::float8 * interval '1 second'
