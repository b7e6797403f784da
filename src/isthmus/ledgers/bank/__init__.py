"""A small double-entry ledger that only transfers: accounts, transfers with references, statements.

`rules` are the books, kept by `database` (SQLAlchemy: SQLite or PostgreSQL); `operations` and `server` are its HTTP
API, `client` speaks to it. All but the client needs the extra `isthmus[bank]`.
"""
