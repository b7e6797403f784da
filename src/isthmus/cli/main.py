"""`isthmus`: the group of all commands. Each is imported only when it is used, so that `isthmus --help` stays quick."""

import importlib
import os
import sys
from typing import Any, NamedTuple, NoReturn

import click
from click.shell_completion import CompletionItem

from isthmus.cli.errors import run_guarded
from isthmus.errors import ConfigError
from isthmus.runtime.process import protect


class Entry(NamedTuple):
    """One command: where it lives, and the line that stands for it in `isthmus --help`."""

    target: str  # module:attribute
    summary: str


COMMANDS: dict[str, Entry] = {
    "demo": Entry("isthmus.cli.demo.command:demo", "Send a payment from BTC to ETH over three local connectors."),
    "wallet": Entry("isthmus.cli.wallet:wallet", "Make a wallet and look at it."),
    "quote": Entry("isthmus.cli.payments:quote", "Say what a payment would cost and deliver."),
    "pay": Entry("isthmus.cli.payments:pay", "Pay a payment pointer or URL."),
    "receive": Entry("isthmus.cli.receive:receive", "Be paid: a STREAM receiver and SPSP server."),
    "history": Entry("isthmus.cli.payments:history", "List what a wallet paid and was paid."),
    "ping": Entry("isthmus.cli.payments:ping", "Measure the way to an address or payment pointer."),
    "trace": Entry("isthmus.cli.trace:trace", "Show the hops on the way to an address, as far as they can be known."),
    "node": Entry("isthmus.cli.node:node", "Make, check and run a connector."),
    "accounts": Entry("isthmus.cli.accounts:accounts", "List and change the accounts of a running node."),
    "peer": Entry("isthmus.cli.peer:peer", "Become neighbours with another node, by an invitation."),
    "routes": Entry("isthmus.cli.routes:routes", "Show and change the routes of a running node."),
    "rates": Entry("isthmus.cli.rates:rates", "Show and set the exchange rates of a running node."),
    "engine": Entry("isthmus.cli.engine:engine", "Run a settlement engine for another connector (RFC 38)."),
    "settle": Entry("isthmus.cli.settle:settle", "Pay a peer what we owe it, or book what was paid by hand."),
    "settlements": Entry(
        "isthmus.cli.settlements:settlements", "List settlements, reverse one that failed, assign transfers."
    ),
    "keys": Entry("isthmus.cli.keys:keys", "Make the keys with which settlement engines sign on their ledgers."),
    "channels": Entry("isthmus.cli.channels:channels", "List payment channels; open, fund, redeem and close them."),
    "books": Entry("isthmus.cli.books:books", "Show, verify and export a node's or wallet's books."),
    "sim": Entry("isthmus.cli.sim:sim", "Simulate networks with faults and adversaries, and audit their books."),
    "ledger": Entry("isthmus.cli.ledger:ledger", "Run a ledger: a small bank, or one for development and tests."),
    "decode": Entry("isthmus.cli.decode:decode", "Show an ILP, BTP or STREAM packet as a readable tree."),
    "completion": Entry("isthmus.cli.completion:completion", "Print the completion script of your shell."),
}

EXAMPLES = """\b
Examples:
  isthmus demo
  isthmus node init connector && isthmus node run connector/isthmus.toml
  isthmus wallet init --connector btp+wss://connector.example:7443
  isthmus pay '$bob.example' 0.015
"""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the one that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, attribute = entry.target.split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # The options are the group's own; its parent class would import every command for its help.
        options = click.Command.shell_complete(self, ctx, incomplete)
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        return [CompletionItem(name, help=COMMANDS[name].summary) for name in names] + options


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from isthmus.node.build import version_line

    click.echo(version_line())
    ctx.exit()


@click.group(cls=LazyGroup, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Say which build runs.",
)
@click.option(
    "--debug", is_flag=True, envvar="ISTHMUS_DEBUG", help="Show the stack trace of an error, allow core dumps."
)
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Interledger: pay, be paid, and run a connector between currencies."""
    ctx.obj = {"debug": debug}
    if not __debug__:
        raise ConfigError("python -O", "takes away the checks that guard the books", "Run isthmus without -O.")


def main(args: list[str] | None = None) -> NoReturn:
    """Run one command line and exit with its status: 0 done, 1 failed, 2 misused, 130 interrupted."""
    arguments = sys.argv[1:] if args is None else args

    def command() -> Any:
        return cli.main(arguments, prog_name="isthmus", standalone_mode=False)

    # The option is looked for by hand: an error may come before click has read it.
    wants_trace = "--debug" in arguments or bool(os.environ.get("ISTHMUS_DEBUG"))
    protect(allow_dumps=wants_trace)
    sys.exit(run_guarded(command, debug=lambda: wants_trace))
