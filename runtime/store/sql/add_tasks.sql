-- $1..$20 columns of the batch as arrays, null for a column that is null throughout; $21 repeat
select loser, winner
  from queued_tasks.add_tasks($1::uuid[], $2::text[], $3::smallint[], $4::json[], $5::json[], $6::text[], $7::text[],
       $8::integer[], $9::text[], $10::smallint[], $11::smallint[], $12::float8[], $13::timestamptz[],
       $14::timestamptz[], $15::text[], $16::boolean[], $17::text[], $18::text[], $19::json[], $20::bytea[], $21::boolean)
