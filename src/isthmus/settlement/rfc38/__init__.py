"""Settlement engines over HTTP (RFC 0038), both ways: others' engines for our accounts, ours for others' connectors."""
