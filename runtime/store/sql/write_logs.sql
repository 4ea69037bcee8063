-- the arguments of the function, in its order
select queued_tasks.write_logs($1, $2::uuid[], $3::uuid[], $4::integer[], $5::float8[], $6::smallint[], $7::text[],
       $8::text[], $9::text[], $10)
