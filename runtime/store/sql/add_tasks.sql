-- $1..$11 columns of the batch as arrays, $3 of JSON, null for one that is null throughout; $12..$21 those of its forms; $22 repeat
select loser, winner
  from queued_tasks.add_tasks($1::uuid[], $2::integer[], $3::json, $4::json[], $5::text[], $6::timestamptz[],
       $7::timestamptz[], $8::text[], $9::text[], $10::json[], $11::bytea[],
       $12::text[], $13::smallint[], $14::text[], $15::text[], $16::integer[], $17::smallint[], $18::smallint[],
       $19::float8[], $20::boolean[], $21::text[], $22::boolean)
