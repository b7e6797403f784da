"""What of a configuration may change while the node runs, when its file is read again."""

from isthmus.errors import ConfigError
from isthmus.node.config_model import NodeConfig


def check_reload(before: NodeConfig, after: NodeConfig) -> None:
    """What a reload leaves as it is must be the same in both files."""
    for key, old_value, new_value in (
        ("accounts", _fixed(before), _fixed(after)),
        ("address", before.address, after.address),
        ("data", before.data, after.data),
        ("listeners", (before.btp, before.http), (after.btp, after.http)),
        ("admin", before.admin, after.admin),
        ("settlement", before.engines, after.engines),
        ("journal", before.journal, after.journal),
        ("log", before.log, after.log),
    ):
        if old_value != new_value:
            raise ConfigError(
                key,
                "a reload changes rates, routes and limits only",
                "Use `isthmus accounts` while the node runs, or restart it",
            )


def _fixed(config: NodeConfig) -> dict[str, tuple[object, ...]]:
    """What a reload leaves as it is of each account."""
    return {each.id: (each.asset, each.relation, each.link, each.segment) for each in config.accounts}
