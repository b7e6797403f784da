'use strict'
// An ilp-connector from a JSON config. An account's "plugin" is {"module", "options"} as in plugins.js.

const reduct = require('reduct')
const { createApp } = require('ilp-connector')
const { setOutputStream } = require('ilp-connector/dist/common/log')
const Accounts = require('ilp-connector/dist/services/accounts').default
const MiddlewareManager = require('ilp-connector/dist/services/middleware-manager').default
const RouteBroadcaster = require('ilp-connector/dist/services/route-broadcaster').default
const { emit, serve } = require('./lines')
const { makePlugin } = require('./plugins')

setOutputStream(process.stderr)

let app
let container
const plugins = {}

function addPlugin (name, account) {
  const plugin = makePlugin(account.plugin, (port) => emit('listening', { account: name, port }))
  // Every connection, the later ones too, so that a test can wait for a reconnection.
  plugin.on('connect', () => emit('connected', { account: name }))
  plugin.on('disconnect', () => emit('disconnected', { account: name }))
  plugins[name] = plugin
  return { ...account, plugin }
}

serve({
  /** Answers at once: "listening", "connected" and "ready" follow as events. */
  start ({ config }) {
    const accounts = {}
    for (const [name, account] of Object.entries(config.accounts)) accounts[name] = addPlugin(name, account)
    container = reduct()
    app = createApp({ backend: 'one-to-one', spread: 0, ...config, accounts }, container)
    app.listen().then(() => emit('ready', { address: container(Accounts).getOwnAddress() }))
  },

  /** Balances as the connector sees them: positive means that the peer owes it. */
  status () {
    const balances = container(MiddlewareManager).getMiddleware('balance').getStatus().accounts
    const accounts = {}
    for (const [name, plugin] of Object.entries(plugins)) {
      accounts[name] = {
        connected: plugin.isConnected(),
        balance: Object.hasOwn(balances, name) ? balances[name].balance : null
      }
    }
    return { address: container(Accounts).getOwnAddress(), accounts, rss: process.memoryUsage().rss }
  },

  /** Of an account with ilp-plugin-xrp-paychan: claims signed and taken so far, and the total of the last one taken. */
  claims ({ account }) {
    const { claims, values } = plugins[account]._store._store
    return { ...claims, total: JSON.parse(values.get('incoming_claim') || '{"amount":"0"}').amount }
  },

  /** Its routing table: prefix -> account; its own address leads to ''. */
  routes () {
    const { localRoutingTable } = container(RouteBroadcaster).getStatus()
    return Object.fromEntries(Object.entries(localRoutingTable).map(([prefix, route]) => [prefix, route.nextHop]))
  },

  /** Asks a peer for its routes, as a new connection does: a peer that dials refuses that until it is ready. */
  ask ({ account }) {
    container(RouteBroadcaster).add(account)
  },

  async stop () {
    await app.shutdown()
  }
})
