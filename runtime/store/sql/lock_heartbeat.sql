-- $1 server: waits for its claims that are under way, so that the next statement sees their leases
select h.server from queued_tasks.heartbeat h where h.server = $1 for update
