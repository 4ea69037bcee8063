-- the arguments of the function, in its order
select lost, lined, told
  from queued_tasks.settle($1, $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::integer[], $7::text[], $8::float8[],
       $9::float8[], $10::json[], $11::float8[], $12::text[], $13::text[], $14::text[], $15::uuid[])
