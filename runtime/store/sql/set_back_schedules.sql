-- What lies later than now was written by a clock that was ahead. A schedule goes on with what was due within the last
-- minute, and counts as confirmed just now: nobody could tell when it was.
update queued_tasks.schedule s
   set since = case when s.since > clock_timestamp() then clock_timestamp() - interval '1 minute' else s.since end,
       seen_at = least(s.seen_at, clock_timestamp())
 where s.since > clock_timestamp() or s.seen_at > clock_timestamp()
