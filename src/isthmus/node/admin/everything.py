"""All operations of the admin API. Whoever adds to the API adds here: the server and the document follow."""

from isthmus.node.admin.accounts import account_operations
from isthmus.node.admin.alarms import alarm_operations
from isthmus.node.admin.books import View, books_operations
from isthmus.node.admin.channels import channel_operations
from isthmus.node.admin.joining import join_operations
from isthmus.node.admin.openapi import with_document
from isthmus.node.admin.operation import Operation
from isthmus.node.admin.rates import rates_operations
from isthmus.node.admin.routes import route_operations
from isthmus.node.admin.settlements import settlement_operations
from isthmus.node.admin.unmatched import unmatched_operations
from isthmus.node.control import Control
from isthmus.node.joining import Joining
from isthmus.node.rates.provider import Provider
from isthmus.runtime.driver import Driver
from isthmus.runtime.engines import EngineRunner


def all_operations(
    view: View,
    control: Control,
    driver: Driver,
    rates: Provider,
    joining: Joining,
    engines: EngineRunner,
    journal: str,
) -> list[Operation]:
    """None of these is asked anything before a request comes."""
    return with_document(
        [
            *books_operations(view),
            *account_operations(control),
            *route_operations(control, driver),
            *rates_operations(driver, rates),
            *join_operations(joining),
            *channel_operations(engines),
            *unmatched_operations(engines),
            *alarm_operations(engines),
            *settlement_operations(view, driver, engines, journal),
        ]
    )
