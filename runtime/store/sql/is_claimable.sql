-- $1 server, $2 lanes, $3 their ranks, $4 their low-waters, $5 a full channel counts, too
select queued_tasks.is_claimable($1, $2::integer[], $3::integer[], $4::bigint[], $5)
