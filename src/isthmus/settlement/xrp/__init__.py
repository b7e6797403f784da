"""Settlement on the XRP Ledger: by payment channels, or by plain payments."""
