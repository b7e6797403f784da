"""Settlement engines: they pay peers on ledgers, and see what peers pay (design, "Settlement")."""
