'use strict'
// The end of a path: one plugin, and on it a STREAM receiver or sender, an SPSP server or client, ILDCP, or bare packets.

const { emit, serve } = require('./lines')
const { makePlugin } = require('./plugins')
const packets = require('./packets')
const spsp = require('./spsp')
const stream = require('./stream')

let spec
let plugin
let usedUp = false

function newPlugin () {
  plugin = makePlugin(spec, (port) => emit('listening', { port }))
  plugin.on('disconnect', () => emit('disconnected'))
  return plugin
}

/** ilp-protocol-stream's client disconnects its plugin for good with its connection: each payment needs a new one. */
function payingPlugin () {
  if (usedUp) newPlugin()
  usedUp = true
  return plugin
}

serve({
  /** Makes the plugin and connects it; a listener tells its port by "listening", and "connected" follows. */
  start (args) {
    spec = args.plugin
    newPlugin()
    if (args.handler) plugin.registerDataHandler(packets.handlers[args.handler](args))
    plugin.connect().then(() => emit('connected'), (err) => emit('failed', { message: err.message }))
  },

  async stop () {
    await plugin.disconnect()
  },

  ildcp: () => packets.ildcp(plugin),
  prepare: (args) => packets.prepare(plugin, args),
  listen: (args) => stream.listen(plugin, args),
  credentials: (args) => stream.credentials(args),
  pay: (args) => stream.pay(payingPlugin(), args),
  exchange: (args) => stream.exchange(payingPlugin(), args),
  spspListen: (args) => spsp.listen(plugin, args),
  spspQuery: (args) => spsp.query(args),
  spspPay: (args) => spsp.pay(payingPlugin(), args)
})
