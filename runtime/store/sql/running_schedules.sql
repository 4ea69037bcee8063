-- those whose last run has neither ended nor been stopped
select s.name from queued_tasks.schedule s where queued_tasks.is_running(s.name)
