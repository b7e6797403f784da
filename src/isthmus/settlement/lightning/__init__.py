"""Settlement over Bitcoin Lightning, by an lnd on each side."""
