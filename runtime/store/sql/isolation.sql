-- how transactions begin in this session unless they say otherwise
select current_setting('default_transaction_isolation')
