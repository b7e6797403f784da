'use strict'
// Makes the plugins of others from JSON and tells on which port they listen: port 0 is asked for everywhere.

const PluginBtp = require('ilp-plugin-btp')
const PluginHttp = require('ilp-plugin-http')
const WebSocket = require('ws')

function makeBtp (options, listening) {
  class Server extends WebSocket.Server {
    constructor (wsOptions) {
      super({ ...wsOptions, host: '127.0.0.1' })
      this.on('listening', () => listening(this.address().port))
    }
  }
  return new PluginBtp(options, { WebSocketServer: Server })
}

function makeHttp (options, listening) {
  const plugin = new PluginHttp(options)
  const connect = plugin.connect.bind(plugin)
  plugin.connect = async () => {
    if (plugin.isConnected()) return
    await connect()
    await new Promise((resolve) => plugin._httpServer.listening ? resolve() : plugin._httpServer.once('listening', resolve))
    listening(plugin._httpServer.address().port)
  }
  return plugin
}

/** What a plugin keeps, in memory; it counts the signed claims among it, as the plugin writes each down. */
class ClaimStore {
  constructor () {
    this.values = new Map()
    this.claims = { signed: 0, taken: 0 }
  }

  async get (key) {
    return this.values.get(key)
  }

  async put (key, value) {
    this.values.set(key, value)
    if (key === 'outgoing_claim') this.claims.signed++
    if (key === 'incoming_claim' && value.includes('"signature"')) this.claims.taken++
  }

  async del (key) {
    this.values.delete(key)
  }
}

function makePaychan (options, listening) {
  const PluginXrpPaychan = require('ilp-plugin-xrp-paychan') // only here: its ripple-lib takes long to load
  class Server extends WebSocket.Server {
    constructor (wsOptions) {
      super({ ...wsOptions, host: '127.0.0.1' })
      this.on('listening', () => listening(this.address().port))
    }
  }
  return new PluginXrpPaychan({ ...options, _store: new ClaimStore() }, { WebSocketServer: Server })
}

const makers = { btp: makeBtp, http: makeHttp, paychan: makePaychan }

/** `spec` is {"module": "btp"|"http"|"paychan", "options": {...}} with the options that the plugin itself documents. */
function makePlugin (spec, listening = () => {}) {
  if (!Object.hasOwn(makers, spec.module)) throw new Error('unknown plugin ' + spec.module)
  return makers[spec.module](spec.options, listening)
}

module.exports = { makePlugin }
