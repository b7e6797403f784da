'use strict'
// One ilp-plugin-xrp-paychan, unmodified: opens a channel to its peer on a ledger, and exchanges claims with it by BTP.

const PluginXrpPaychan = require('ilp-plugin-xrp-paychan')
const WebSocket = require('ws')
const { emit, serve } = require('./lines')

class Store {
  constructor () {
    this.values = new Map()
  }

  async get (key) {
    return this.values.get(key)
  }

  async put (key, value) {
    this.values.set(key, value)
  }

  async del (key) {
    this.values.delete(key)
  }
}

class Server extends WebSocket.Server {
  constructor (options) {
    super({ ...options, host: '127.0.0.1' })
    this.on('listening', () => emit('listening', { port: this.address().port }))
  }
}

const store = new Store()
let plugin

serve({
  /** Connects, in the background: "listening" tells the port of a listener, "connected" that its channel is open. */
  start (args) {
    plugin = new PluginXrpPaychan({ ...args.options, _store: store }, { WebSocketServer: Server })
    plugin.registerMoneyHandler(async (amount) => emit('money', { amount }))
    plugin.registerDataHandler(async (data) => data)
    plugin.connect().then(() => emit('connected'), (err) => emit('failed', { message: err.message }))
    return { address: plugin._address }
  },

  /** A claim for so much more, in the plugin's units; done when the peer has accepted it. */
  sendMoney: async (args) => plugin.sendMoney(args.amount),

  /** A packet there and back, which makes the peer look at our channel. */
  sendData: async (args) => (await plugin.sendData(Buffer.from(args.data))).toString(),

  /** The peer's channel, as the ledger has it. */
  incoming: async () => plugin._api.getPaymentChannel(plugin._incomingChannel),

  channels: () => ({ incoming: plugin._incomingChannel, outgoing: plugin._outgoingChannel }),

  /** Redeems the best claim, then hangs up. */
  stop: async () => plugin.disconnect()
})
