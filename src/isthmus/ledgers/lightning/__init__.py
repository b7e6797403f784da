"""Bitcoin Lightning, by an lnd of the operator's own."""
