"""The development ledger: one process that answers as `rippled` does, for tests and demonstrations, never for money.

`engine`, `ledger` and what they use are pure: bytes, values and the time go in. `store` keeps closed ledgers in SQLite,
`api` answers requests, `server` carries them over WebSocket and HTTP.
"""
