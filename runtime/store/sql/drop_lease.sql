-- $1 server, $2 lease whose claim was never answered: puts back what it holds; how many
select queued_tasks.drop_lease($1, $2)
