"""The benchmark: this queue and its peers, side by side and by turns, on one PostgreSQL."""
