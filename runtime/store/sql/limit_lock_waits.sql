-- Whoever comes after a wait for an exclusive lock waits behind it. Longer than deadlock_timeout (1 s), after which
-- PostgreSQL ends an autovacuum that is in the way.
set local lock_timeout = '2s'
