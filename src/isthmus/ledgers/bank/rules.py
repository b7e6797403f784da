"""The bank's books: what may be transferred, and what each transfer writes.

A transfer is one transaction: it writes the transfer, an entry on both accounts, and both balances, or nothing. So the
balances of an asset always sum to zero: what the issuer's account is below it, the others are above it.
"""

import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final, final

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Connection, Row

from isthmus.ledgers.bank import schema
from isthmus.ledgers.bank.database import Database
from isthmus.ledgers.bank.values import (
    ACCOUNTS_PAGE_MAX,
    AMOUNT_MAX,
    ENTRIES_PAGE_MAX,
    TOKENS_PER_ACCOUNT_MAX,
    Account,
    Entry,
    Order,
    RefusedError,
    Token,
    Transfer,
)

_TOKEN_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_AUDIT_ROWS: Final = 1_000  # read at a time


@final
class Bank:
    """All that is asked of the books. RefusedError for what can't be done, LedgerError if the database fails.

    Calls block; several threads may make them.
    """

    def __init__(self, database: Database, *, now_ms: Callable[[], int]) -> None:
        self._database: Final = database
        self._now_ms: Final = now_ms

    @property
    def id(self) -> str:
        """What tells this bank from all others."""
        return self._database.id

    def close(self) -> None:
        self._database.close()

    # --- accounts ---------------------------------------------------------------------------------------------------

    def open_account(self, account: Account) -> tuple[Account, bool]:
        """The account, and whether it is new. Opened again as it is, it stays as it is."""

        def work(db: Connection) -> tuple[Account, bool]:
            before = _find(db, account.id)
            if before is not None:
                known = replace(before, balance=0, entries=0, last_at_ms=0)
                if known != account:
                    raise RefusedError(409, "account-exists", f"{account.id} is there, and is another account.")
                return before, False
            scale = db.execute(
                select(schema.assets.c.scale).where(schema.assets.c.code == account.asset_code)
            ).scalar_one_or_none()
            if scale is None:
                db.execute(insert(schema.assets).values(code=account.asset_code, scale=account.asset_scale))
            elif scale != account.asset_scale:
                detail = f"{account.asset_code} has {scale} decimal places here, in all accounts."
                raise RefusedError(409, "other-scale", detail)
            db.execute(
                insert(schema.accounts).values(
                    id=account.id,
                    name=account.name,
                    asset_code=account.asset_code,
                    balance=0,
                    overdraft=account.overdraft,
                    entries=0,
                    last_at_ms=0,
                )
            )
            return account, True

        return self._database.write(work)

    def change_account(self, account: str, changes: dict[str, Any]) -> Account:
        """`name` and `overdraft`, those that are given. Who is further below than allowed can only be paid."""

        def work(db: Connection) -> Account:
            found = replace(_known(db, account), **changes)
            values = {"name": found.name, "overdraft": found.overdraft}
            db.execute(update(schema.accounts).where(schema.accounts.c.id == account).values(values))
            return found

        return self._database.write(work)

    def account(self, account: str) -> Account:
        return self._database.read(lambda db: _known(db, account))

    def accounts(self, after: str, limit: int = ACCOUNTS_PAGE_MAX) -> Sequence[Account]:
        """The next ones in the order of their ids."""
        query = _ACCOUNTS.where(schema.accounts.c.id > after).order_by(schema.accounts.c.id).limit(limit)
        return self._database.read(lambda db: [_account(row) for row in db.execute(query)])

    # --- transfers --------------------------------------------------------------------------------------------------

    def transfer(self, order: Order) -> tuple[Transfer, bool]:
        """The transfer under this payer's key, and whether it was made just now. A key is never forgotten."""
        made = secrets.token_hex(16)

        def work(db: Connection) -> tuple[Transfer, bool]:
            before = _under(db, order.payer, order.key)
            if before is not None:
                if before.order != order:
                    raise RefusedError(409, "key-used", "This key was used for another transfer.")
                return before, False
            if _is_void(db, order.payer, order.key):
                raise RefusedError(409, "key-void", "This key was voided: nothing is done under it.")
            payer, payee = _known(db, order.payer), _find(db, order.payee)
            after_payer, after_payee = _balances(order, payer, payee)
            assert payee is not None
            at_ms = max(self._now_ms(), payer.last_at_ms + 1, payee.last_at_ms + 1)
            transfer = Transfer(id=made, order=order, at_ms=at_ms)
            db.execute(
                insert(schema.transfers).values(
                    id=made,
                    payer=order.payer,
                    key=order.key,
                    payee=order.payee,
                    amount=order.amount,
                    reference=order.reference,
                    at_ms=at_ms,
                )
            )
            moves = [(payer, -order.amount, after_payer), (payee, order.amount, after_payee)]
            for account, amount, balance in sorted(moves, key=lambda move: move[0].id):
                _enter(db, account, transfer, amount, balance)
            return transfer, True

        return self._database.write(work)

    def transfer_under(self, payer: str, key: str) -> Transfer:
        """What was transferred under this key."""

        def work(db: Connection) -> Transfer:
            _known(db, payer)
            found = _under(db, payer, key)
            if found is None:
                detail = "This key was voided." if _is_void(db, payer, key) else "Nothing was done under this key."
                raise RefusedError(404, "no-such-transfer", detail)
            return found

        return self._database.read(work)

    def void(self, payer: str, key: str) -> None:
        """From here on nothing is done under this key. RefusedError if it was used: that can't be undone."""

        def work(db: Connection) -> None:
            _known(db, payer)
            if _under(db, payer, key) is not None:
                raise RefusedError(409, "key-used", "The transfer under this key is done.")
            if not _is_void(db, payer, key):
                db.execute(insert(schema.voided).values(payer=payer, key=key))

        self._database.write(work)

    def statement(self, account: str, after: int, limit: int = ENTRIES_PAGE_MAX) -> tuple[Account, Sequence[Entry]]:
        """The account, and its entries after this number, oldest first; both as of one moment."""
        entries, transfers = schema.entries.c, schema.transfers.c
        query = (
            select(schema.entries, transfers.payer, transfers.payee, transfers.reference, transfers.at_ms)
            .join(schema.transfers, entries.transfer == transfers.id)
            .where(entries.account == account, entries.number > after)
            .order_by(entries.number)
            .limit(limit)
        )
        return self._database.read(lambda db: (_known(db, account), [_entry(row) for row in db.execute(query)]))

    # --- tokens -----------------------------------------------------------------------------------------------------

    def new_token(self, account: str | None, label: str) -> tuple[Token, str]:
        """What is known of it, and the token itself, which is told once. `None`: an operator's."""
        token_id, secret = secrets.token_hex(_TOKEN_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
        token = Token(id=token_id, label=label, created_at_ms=self._now_ms())

        def work(db: Connection) -> None:
            if account is not None:
                _known(db, account)
            query = select(func.count()).select_from(schema.tokens).where(schema.tokens.c.account == account)
            if account is not None and db.execute(query).scalar_one() >= TOKENS_PER_ACCOUNT_MAX:
                detail = f"An account has {TOKENS_PER_ACCOUNT_MAX} tokens at most; revoke one."
                raise RefusedError(409, "too-many-tokens", detail)
            db.execute(
                insert(schema.tokens).values(
                    id=token_id, account=account, label=label, digest=_digest(secret), created_at_ms=token.created_at_ms
                )
            )

        self._database.write(work)
        return token, f"{token_id}.{secret}"

    def ensure_operator(self, token: str, label: str) -> None:
        """This is the operator's token with this label, and no other is. RefusedError if it is none of ours."""
        token_id, dot, secret = token.partition(".")
        if not dot or len(token_id) != 2 * _TOKEN_ID_BYTES or len(secret) < _SECRET_BYTES:
            raise RefusedError(400, "bad-request", "It is no token of a bank.")

        def work(db: Connection) -> None:
            columns = schema.tokens.c
            old = db.execute(select(schema.tokens).where(columns.account.is_(None), columns.label == label)).all()
            if [(row.id, row.digest) for row in old] == [(token_id, _digest(secret))]:
                return
            db.execute(delete(schema.tokens).where(columns.account.is_(None), columns.label == label))
            db.execute(
                insert(schema.tokens).values(
                    id=token_id, account=None, label=label, digest=_digest(secret), created_at_ms=self._now_ms()
                )
            )

        self._database.write(work)

    def tokens(self, account: str) -> Sequence[Token]:
        query = select(schema.tokens).where(schema.tokens.c.account == account).order_by(schema.tokens.c.created_at_ms)

        def work(db: Connection) -> Sequence[Token]:
            _known(db, account)
            return [Token(id=row.id, label=row.label, created_at_ms=row.created_at_ms) for row in db.execute(query)]

        return self._database.read(work)

    def revoke(self, account: str, token_id: str) -> None:
        columns = schema.tokens.c
        query = delete(schema.tokens).where(columns.id == token_id, columns.account == account)
        if not self._database.write(lambda db: db.execute(query).rowcount):
            raise RefusedError(404, "no-such-token", "This account has no such token.")

    def holder_of(self, token: str) -> tuple[bool, str | None]:
        """Whether it is a token of this bank, and whose: an account's id, or None for an operator's."""
        token_id, _, secret = token.partition(".")
        asked = token_id if token_id.isascii() and token_id.isalnum() and len(token_id) == 2 * _TOKEN_ID_BYTES else ""
        query = select(schema.tokens).where(schema.tokens.c.id == asked)
        row = self._database.read(lambda db: db.execute(query).one_or_none())
        # Compared in any case, in constant time: the database was asked by the id alone, which is no secret.
        known = b"\0" * 32 if row is None else bytes(row.digest)
        is_right = hmac.compare_digest(_digest(secret), known) and row is not None
        return is_right, row.account if is_right and row is not None else None

    # --- the audit --------------------------------------------------------------------------------------------------

    def audit(self) -> list[str]:
        """What is wrong with the books: nothing. All is read, at one moment."""
        return self._database.read(_audit)


def new_operator_token() -> str:
    """One that no bank knows yet."""
    return f"{secrets.token_hex(_TOKEN_ID_BYTES)}.{secrets.token_urlsafe(_SECRET_BYTES)}"


def _digest(secret: str) -> bytes:
    """Secrets are 256 random bits: nothing slower is needed."""
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()


_ACCOUNTS: Final = select(schema.accounts, schema.assets.c.scale).join(
    schema.assets, schema.accounts.c.asset_code == schema.assets.c.code
)


def _account(row: Row[Any]) -> Account:
    return Account(
        id=row.id,
        name=row.name,
        asset_code=row.asset_code,
        asset_scale=row.scale,
        balance=row.balance,
        overdraft=row.overdraft,
        entries=row.entries,
        last_at_ms=row.last_at_ms,
    )


def _find(db: Connection, account: str) -> Account | None:
    row = db.execute(_ACCOUNTS.where(schema.accounts.c.id == account)).one_or_none()
    return None if row is None else _account(row)


def _known(db: Connection, account: str) -> Account:
    found = _find(db, account)
    if found is None:
        raise RefusedError(404, "no-such-account", "There is no such account.")
    return found


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        number=row.number,
        transfer=row.transfer,
        at_ms=row.at_ms,
        amount=row.amount,
        balance=row.balance,
        counterparty=row.payee if row.amount < 0 else row.payer,
        reference=row.reference,
    )


def _under(db: Connection, payer: str, key: str) -> Transfer | None:
    query = select(schema.transfers).where(schema.transfers.c.payer == payer, schema.transfers.c.key == key)
    row = db.execute(query).one_or_none()
    if row is None:
        return None
    order = Order(payer=row.payer, key=row.key, payee=row.payee, amount=row.amount, reference=row.reference)
    return Transfer(id=row.id, order=order, at_ms=row.at_ms)


def _is_void(db: Connection, payer: str, key: str) -> bool:
    query = select(schema.voided.c.key).where(schema.voided.c.payer == payer, schema.voided.c.key == key)
    return db.execute(query).one_or_none() is not None


def _balances(order: Order, payer: Account, payee: Account | None) -> tuple[int, int]:
    """Of both after the transfer; RefusedError if it can't be."""
    if payee is None:
        raise RefusedError(422, "no-such-payee", "There is no account of this name to pay to.")
    if payer.id == payee.id:
        raise RefusedError(422, "same-account", "Both sides are the same account.")
    if payer.asset_code != payee.asset_code:
        detail = f"The payer has {payer.asset_code}, the payee {payee.asset_code}."
        raise RefusedError(422, "other-asset", detail)
    after_payer, after_payee = payer.balance - order.amount, payee.balance + order.amount
    lowest = -AMOUNT_MAX if payer.overdraft is None else -payer.overdraft
    if after_payer < lowest:
        raise RefusedError(409, "insufficient-funds", "The account doesn't have as much, its overdraft included.")
    if after_payee > AMOUNT_MAX:
        raise RefusedError(409, "too-much", "The payee's account can't hold as much.")
    return after_payer, after_payee


def _enter(db: Connection, account: Account, transfer: Transfer, amount: int, balance: int) -> None:
    number = account.entries + 1
    db.execute(
        update(schema.accounts)
        .where(schema.accounts.c.id == account.id)
        .values(balance=balance, entries=number, last_at_ms=transfer.at_ms)
    )
    db.execute(
        insert(schema.entries).values(
            account=account.id, number=number, transfer=transfer.id, amount=amount, balance=balance
        )
    )


def _audit(db: Connection) -> list[str]:
    problems: list[str] = []
    sums: dict[str, int] = {}
    accounts = {row.id: _account(row) for row in db.execute(_ACCOUNTS)}
    seen: dict[str, tuple[int, int]] = dict.fromkeys(accounts, (0, 0))  # entries and balance so far
    query = (
        select(schema.entries, schema.transfers.c.amount.label("of_transfer"), schema.transfers.c.payer)
        .join(schema.transfers, schema.entries.c.transfer == schema.transfers.c.id)
        .order_by(schema.entries.c.account, schema.entries.c.number)
        .execution_options(yield_per=_AUDIT_ROWS)
    )
    for row in db.execute(query):
        count, balance = seen[row.account]
        seen[row.account] = (row.number, balance + row.amount)
        if row.number != count + 1:
            problems.append(f"{row.account}: entry {row.number} comes after {count}")
        if row.balance != balance + row.amount:
            problems.append(f"{row.account}: the balance of entry {row.number} is not the sum of all before")
        if row.amount != (-row.of_transfer if row.payer == row.account else row.of_transfer):
            problems.append(f"{row.account}: entry {row.number} is not what its transfer says")
    for account in accounts.values():
        if seen[account.id] != (account.entries, account.balance):
            problems.append(f"{account.id}: the balance is not the sum of its entries")
        sums[account.asset_code] = sums.get(account.asset_code, 0) + account.balance
    problems += [f"{code}: all balances sum to {total}, not to zero" for code, total in sums.items() if total]
    pairs = select(schema.entries.c.transfer).group_by(schema.entries.c.transfer).having(func.count() != 2)
    problems += [f"transfer {row.transfer}: it has not two entries" for row in db.execute(pairs)]
    return problems
