'use strict'
// SPSP: the server middleware of the `ilp` package, and ilp-protocol-spsp as the client.

const http = require('http')
const { express: { createMiddleware } } = require('ilp')
const SPSP = require('ilp-protocol-spsp')
const { DataAndMoneyStream } = require('ilp-protocol-stream')

// `ilp` was written for ilp-protocol-stream 1.x, which does not run on Node 20, and sets limits as BigNumbers; package.json
// gives it 2.x, which takes strings.
const { setReceiveMax } = DataAndMoneyStream.prototype
DataAndMoneyStream.prototype.setReceiveMax = function (limit) {
  return setReceiveMax.call(this, String(limit))
}

/** Its streams take money only for queries with `?amount=N`: `amount` adds that. The middleware is for Express, of which it uses three things; they are all that is given here. */
async function listen (plugin, { template = {}, amount }) {
  const middleware = await createMiddleware(template, plugin)
  const server = http.createServer((req, res) => {
    const url = new URL(req.url, 'http://127.0.0.1')
    if (url.pathname !== '/.well-known/pay') {
      res.writeHead(404, { 'Content-Type': 'application/spsp4+json' })
      res.end(JSON.stringify({ id: 'InvalidReceiverError', message: 'Invalid receiver ID' }))
      return
    }
    middleware(
      { query: { ...Object.fromEntries(url.searchParams), ...(amount && { amount }) } },
      { set: (name, value) => res.setHeader(name, value), send: (body) => res.end(JSON.stringify(body)) }
    )
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { url: `http://127.0.0.1:${server.address().port}/.well-known/pay` }
}

function query ({ url }) {
  return SPSP.query(url)
}

function pay (plugin, { url, amount, timeoutMs = 20000 }) {
  return SPSP.pay(plugin, { pointer: url, sourceAmount: amount, streamOpts: { timeout: timeoutMs } })
}

module.exports = { listen, pay, query }
