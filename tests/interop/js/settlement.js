'use strict'
// An RFC 38 settlement engine on ilp-settlement-core, whose ledger is the test.

const { startServer } = require('ilp-settlement-core')
const { default: BigNumber } = require('bignumber.js')
const { emit, serve } = require('./lines')

let services

serve({
  start: async ({ port, connectorUrl }) => {
    await startServer(
      async (given) => {
        services = given
        return {
          setupAccount: async (account) => emit('account', { account }),
          closeAccount: async (account) => emit('closed', { account }),
          settle: async (account, amount) => {
            emit('settle', { account, amount: amount.toFixed() })
            return amount
          },
          handleMessage: async (account, message) => {
            emit('message', { account, message })
            return { heard: message }
          }
        }
      },
      undefined,
      { port, connectorUrl }
    )
  },
  // What came in on the ledger, in whole units of the asset.
  credit: ({ account, amount, id }) => services.creditSettlement(account, new BigNumber(amount), id),
  message: ({ account, message }) => services.sendMessage(account, message)
})
