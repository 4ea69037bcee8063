select id, channel, priority, sync, again, function from queued_tasks.lane
