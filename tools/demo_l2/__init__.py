"""`make demo-l2`: payments that real ledgers settle at both ends, on this machine."""
