"""Settlements by the thousand on real ledgers, while nodes are killed at random (`make settle-crash`)."""
