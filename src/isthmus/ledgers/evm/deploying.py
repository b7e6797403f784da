"""Puts the channels' contract onto a chain, at the address that it has on all chains."""

import asyncio
from typing import Final

from isthmus.errors import LedgerError
from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.chain import Chain
from isthmus.ledgers.evm.fees import FeePolicy
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import checksummed, hexed, parse_quantity
from isthmus.ledgers.evm.rpc import Node
from isthmus.ledgers.evm.transactions import Call, sign_call

WAIT_S: Final = 600
POLL_S: Final = 1.0


async def deploy(url: str, key: Key, *, poll_s: float = POLL_S) -> str:
    """What was done, for people. IsthmusError; TimeoutError if no block takes it."""
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
