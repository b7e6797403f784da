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

const makers = { btp: makeBtp, http: makeHttp }

/** `spec` is {"module": "btp"|"http", "options": {...}} with the options that the plugin itself documents. */
function makePlugin (spec, listening = () => {}) {
  if (!Object.hasOwn(makers, spec.module)) throw new Error('unknown plugin ' + spec.module)
  return makers[spec.module](spec.options, listening)
}

module.exports = { makePlugin }
