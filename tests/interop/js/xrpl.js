'use strict'
// npm xrpl, unmodified: its client, its wallets, and the hashes that it computes by itself.

const { Client, Wallet, ECDSA, authorizeChannel, hashes } = require('xrpl')
const { emit, serve } = require('./lines')

let client
const wallets = {}

serve({
  async connect (args) {
    client = new Client(args.server)
    client.on('ledgerClosed', (ledger) => emit('ledgerClosed', { index: ledger.ledger_index }))
    client.on('transaction', (pushed) => emit('transaction', { hash: pushed.hash, validated: pushed.validated }))
    await client.connect()
    return { network: client.networkID, version: client.buildVersion }
  },

  async disconnect () {
    await client.disconnect()
  },

  /** A wallet with money from the ledger's faucet. */
  async fund (args) {
    const wallet = args.algorithm ? Wallet.generate(ECDSA[args.algorithm]) : null
    const options = { faucetHost: args.faucet, faucetProtocol: 'http' }
    const funded = await client.fundWallet(wallet, options)
    wallets[args.wallet] = funded.wallet
    return { address: funded.wallet.address, balance: funded.balance }
  },

  /** Any transaction, completed, signed and followed to its end. */
  async submit (args) {
    const wallet = wallets[args.wallet]
    const response = await client.submitAndWait({ Account: wallet.address, ...args.transaction }, { wallet })
    return response.result
  },

  /** A claim on a channel, with its signature. */
  claim (args) {
    const wallet = wallets[args.wallet]
    const signature = authorizeChannel(wallet, args.channel, args.drops)
    return { Amount: args.drops, Balance: args.drops, Signature: signature, PublicKey: wallet.publicKey }
  },

  publicKey: (args) => wallets[args.wallet].publicKey,
  balances: async (args) => client.getBalances(wallets[args.wallet].address),
  request: async (args) => (await client.request(args.request)).result,

  /** Hashes of a ledger, as the library makes them of its transactions, its entries and its header. */
  async recompute (args) {
    const at = { ledger_index: args.ledger, api_version: 1 }
    const { ledger } = (await client.request({ command: 'ledger', transactions: true, expand: true, ...at })).result
    const { state } = (await client.request({ command: 'ledger_data', ...at })).result
    return {
      told: { ledger: ledger.ledger_hash, transactions: ledger.transaction_hash, state: ledger.account_hash },
      computed: {
        ledger: hashes.hashLedger(ledger),
        transactions: hashes.hashTxTree(ledger.transactions),
        state: hashes.hashStateTree(state)
      }
    }
  }
})
