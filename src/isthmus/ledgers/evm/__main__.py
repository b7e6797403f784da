"""`python -m isthmus.ledgers.evm`: makes keys for engines, and puts the channels' contract onto a chain."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from isthmus.errors import IsthmusError, LedgerError
from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.chain import Chain
from isthmus.ledgers.evm.fees import FeePolicy
from isthmus.ledgers.evm.keys import Key, make_key_file, read_key
from isthmus.ledgers.evm.octets import checksummed, hexed, parse_quantity
from isthmus.ledgers.evm.rpc import Node
from isthmus.ledgers.evm.transactions import Call, sign_call

WAIT_S = 600
POLL_S = 1.0


async def deploy(url: str, key: Key, *, poll_s: float = POLL_S) -> str:
    """What was done, for people. IsthmusError."""
    node = Node(url)
    try:
        chain_id = parse_quantity(await node.call("eth_chainId"), "eth_chainId")
    finally:
        await node.close()
    chain = Chain([url], chain_id)
    try:
        return await _deploy(chain, key, poll_s)
    finally:
        await chain.close()


async def _deploy(chain: Chain, key: Key, poll_s: float) -> str:
    place = checksummed(contract.address())
    head = await chain.head()
    if contract.is_ours(await chain.code(contract.address(), head.number)):
        return f"chain {chain.id} has the contract at {place} already"
    if not await chain.code(contract.DEPLOYER, head.number):
        raise LedgerError(
            f"chain {chain.id} has no deployer at {checksummed(contract.DEPLOYER)}; its authors' page says how"
        )
    gas = await chain.gas(key.address, contract.DEPLOYER, 0, contract.deployment())
    call = Call(to=contract.DEPLOYER, data=contract.deployment(), gas=gas)
    nonce = await chain.transaction_count(key.address, head.number)
    fee = FeePolicy().first(head.base_fee, urgent=False)
    signed = sign_call(call, chain_id=chain.id, nonce=nonce, fee=fee, secret=key.secret)
    reason = await chain.submit(signed.raw)
    if reason:
        raise LedgerError(f"chain {chain.id} refused it: {reason}")
    async with asyncio.timeout(WAIT_S):
        while (receipt := await chain.receipt(signed.hash)) is None:  # noqa: ASYNC110 - a chain calls nobody
            await asyncio.sleep(poll_s)
    if not receipt.succeeded:
        raise LedgerError(f"chain {chain.id} has {hexed(signed.hash)} as failed")
    return f"the contract is at {place} on chain {chain.id}, by {hexed(signed.hash)}, for {receipt.cost} wei"


def new_key(file: Path, passphrase: str | None) -> str:
    """A key in a new file with mode 600; its address."""
    try:
        return checksummed(make_key_file(file, passphrase=passphrase).address)
    except OSError as error:
        raise LedgerError(f"{file}: {error.strerror}; name another file") from None


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(prog="python -m isthmus.ledgers.evm", description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    for name, help_text in (
        ("new-key", "make a key for one engine, in a new file"),
        ("address", "the address of a key"),
        ("deploy", "put the channels' contract onto a chain: once, for everybody there"),
    ):
        one = what.add_parser(name, help=help_text)
        one.add_argument("key_file", type=Path, help="mode 600")
        one.add_argument("--passphrase-variable", help="the environment variable with its passphrase")
        if name == "deploy":
            one.add_argument("--rpc", required=True, help="URL of a node")
    try:
        sys.stdout.write(_do(parser.parse_args()) + "\n")
    except TimeoutError:
        sys.stderr.write("no block has taken it; look at the chain before you try again\n")
        return 1
    except IsthmusError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _do(given: argparse.Namespace) -> str:
    variable: str | None = given.passphrase_variable
    if given.what == "new-key":
        passphrase = os.environ.get(variable, "") if variable else None
        if passphrase == "":
            raise LedgerError(f"the environment has no {variable}")
        return new_key(given.key_file, passphrase)
    key = read_key("key_file", file=given.key_file, variable=None, passphrase_variable=variable, environ=os.environ)
    return checksummed(key.address) if given.what == "address" else asyncio.run(deploy(given.rpc, key))


if __name__ == "__main__":
    sys.exit(main())
