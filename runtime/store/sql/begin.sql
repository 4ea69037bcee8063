-- What is sent as one text is one round trip. A client that has vanished in the middle of a transaction holds no locks
-- for longer than this: whoever takes back what it held waits for them.
begin;
set local idle_in_transaction_session_timeout = '10s'
