"""The actors of a server, one duty each."""
