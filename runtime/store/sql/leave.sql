-- $1 server, $2 reason. Leaves the heartbeat in place while leases are held: they are then rescued by a peer.
with gone as (
    delete from queued_tasks.heartbeat h
     where h.server = $1 and not exists (select from queued_tasks.lease l where l.server = $1)
    returning h.server
)
update queued_tasks.server s set ended_at = now(), end_reason = $2 from gone g where s.id = g.server
