"""The admin API: what an operator's tools ask a running node, and how they change it."""
