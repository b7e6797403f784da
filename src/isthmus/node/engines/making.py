"""Makes a node's engines from its configuration."""

from collections.abc import Callable

from isthmus.connector.events import Now
from isthmus.node.config_model import NodeConfig
from isthmus.node.engines.kind import Surroundings
from isthmus.node.engines.kinds import KINDS
from isthmus.settlement.port import Engine


def make_engines(config: NodeConfig, *, now: Callable[[], Now], random: Callable[[], float]) -> dict[str, Engine]:
    """Each engine by its name, not started. Raises ConfigError for options that can't be used on this machine."""
    engines: dict[str, Engine] = {}
    for one in config.engines:
        surroundings = Surroundings(name=one.name, data=config.data, now=now, random=random)
        engines[one.name] = KINDS[one.kind].make(one.options, surroundings)
    return engines
