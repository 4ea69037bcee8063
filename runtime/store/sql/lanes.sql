select id, channel, priority, sync, again from queued_tasks.lane
