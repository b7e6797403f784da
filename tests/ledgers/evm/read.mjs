// Reads a channel with viem, an Ethereum client by others, from our artifact's ABI alone, and signs a claim as it would.
// Arguments: URL, chain id, contract, artifact's path, channel's terms as JSON, key, amount. Writes JSON.
import { readFileSync } from 'node:fs'
import { createPublicClient, http } from 'viem'
import { privateKeyToAccount } from 'viem/accounts'

const [url, chainId, address, artifact, terms, key, amount] = process.argv.slice(2)
const { abi } = JSON.parse(readFileSync(artifact, 'utf8'))
const client = createPublicClient({ transport: http(url) })
const channel = await client.readContract({ address, abi, functionName: 'channelId', args: [JSON.parse(terms)] })
const [deposited, claimed, closingAt] = await client.readContract({ address, abi, functionName: 'channels', args: [channel] })
const events = await client.getContractEvents({ address, abi, fromBlock: 0n })
const signature = await privateKeyToAccount(key).signTypedData({
  domain: { name: 'Isthmus channels', version: '1', chainId: Number(chainId), verifyingContract: address },
  types: { Claim: [{ name: 'channel', type: 'bytes32' }, { name: 'amount', type: 'uint256' }] },
  primaryType: 'Claim',
  message: { channel, amount: BigInt(amount) }
})
console.log(JSON.stringify({
  channel,
  deposited: deposited.toString(),
  claimed: claimed.toString(),
  closingAt,
  events: events.filter((one) => one.args.channel === channel).map((one) => one.eventName),
  signature
}))
