"""Settlement at a ledger that only transfers (`ledgers.bank`)."""
