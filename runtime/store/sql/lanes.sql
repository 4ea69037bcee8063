select id, channel, priority, again from queued_tasks.lane
