"""Reads a channel with web3, an Ethereum client by others, from our ABI alone, and signs a claim as it would.

Runs in web3's own environment (tools/web3). Arguments as JSON on stdin: url, chain, contract, abi, terms, key, amount.
Writes JSON.
"""

import json
import sys

from eth_account import Account
from web3 import Web3  # type: ignore[import-not-found]  # it is in its own environment only

given = json.load(sys.stdin)
web3 = Web3(Web3.HTTPProvider(given["url"]))
contract = web3.eth.contract(address=Web3.to_checksum_address(given["contract"]), abi=given["abi"])
terms = given["terms"]
for name in ("sender", "receiver", "token"):
    terms[name] = Web3.to_checksum_address(terms[name])
terms["salt"] = bytes.fromhex(terms["salt"])
channel = contract.functions.channelId(terms).call()
deposited, claimed, closing_at = contract.functions.channels(channel).call()
names = [one["name"] for one in given["abi"] if one["type"] == "event"]
events = [log for name in names for log in contract.events[name]().get_logs(from_block=0)]
mine = sorted((log for log in events if log["args"]["channel"] == channel), key=lambda log: log["blockNumber"])
signed = Account.sign_typed_data(
    given["key"],
    domain_data={
        "name": "Isthmus channels",
        "version": "1",
        "chainId": given["chain"],
        "verifyingContract": given["contract"],
    },
    message_types={"Claim": [{"name": "channel", "type": "bytes32"}, {"name": "amount", "type": "uint256"}]},
    message_data={"channel": channel, "amount": given["amount"]},
)
json.dump(
    {
        "chain": web3.eth.chain_id,
        "channel": channel.hex(),
        "state": [deposited, claimed, closing_at],
        "events": [log["event"] for log in mine],
        "signature": signed.signature.hex(),
    },
    sys.stdout,
)
