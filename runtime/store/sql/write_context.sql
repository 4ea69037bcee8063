-- the arguments of the function, in its order
select id from queued_tasks.write_context($1, $2::uuid[], $3::uuid[], $4::integer[], $5::integer[], $6::json[]) id
