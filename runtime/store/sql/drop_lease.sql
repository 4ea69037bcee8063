-- $1 server, $2 lease whose claim was never answered: puts back what it holds; how many
select queued_tasks.give_back($1, l.ids, array[l.id]) from queued_tasks.lease l where l.server = $1 and l.id = $2
