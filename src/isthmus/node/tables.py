"""From a node's configuration to the tables that its kernel reads."""

from isthmus.connector.settling import NO_SETTLEMENT
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, Tables
from isthmus.ilp.address import append_segments
from isthmus.node.config_model import Account, NodeConfig, Relation
from isthmus.node.rates.board import NOTHING, Board


def build_tables(config: NodeConfig, address: str | None = None, rates: RateTable | None = None) -> Tables:
    """The tables for this configuration, checked. `address` is the parent's word where the file has none.

    `rates` are those that hold now, without the accounts' spreads; without any, pairs that are fetched are stopped.
    Children are reached by their addresses; the configuration's own routes win.
    """
    own = config.address or address or ""
    accounts = {account.id: _terms(account, own) for account in config.accounts}
    routes = {terms.child_address: terms.id for terms in accounts.values() if terms.child_address}
    routes.update(config.routes)
    split_ppm = int(config.routing.split_within * 1_000_000)
    tables = Tables(own, accounts, RouteTable(routes), _rates(config, rates), split_ppm)
    tables.check()
    return tables


def _terms(account: Account, own: str) -> AccountTerms:
    limits = account.limits
    is_child = account.relation is Relation.CHILD
    is_parent = account.relation is Relation.PARENT
    return AccountTerms(
        id=account.id,
        asset=account.asset,
        relation=account.relation.value,
        receivable_max=limits.receivable_max,
        payable_max=limits.payable_max,
        packet_amount_max=limits.packet_amount_max,
        packets_per_minute=limits.packets_per_minute,
        in_flight_max=limits.in_flight_max,
        amount_per_second=limits.per_second_max,
        expiry_margin_ms=limits.margin_ms,
        hold_ms_max=limits.hold_ms_max,
        open_legs_max=limits.open_legs_max,
        ildcp_client=is_parent,
        ildcp_server=is_child,
        child_address=append_segments(own, account.segment) if is_child and own else "",
        echo_amount_max=limits.echo_amount_max,
        routes=account.routes,
        settle=NO_SETTLEMENT if account.settlement is None else account.settlement.terms,
        disabled=not account.enabled,
    )


def _rates(config: NodeConfig, rates: RateTable | None) -> RateTable:
    table = Board(config.rates, NOTHING).table(0) if rates is None else rates
    spreads = {account.id: account.spread for account in config.accounts if account.spread is not None}
    return table.with_account_spreads(spreads)
