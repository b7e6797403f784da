'use strict'
// STREAM by ilp-protocol-stream: a receiver that tells what comes in, and senders of money and data.

const { createConnection, createServer } = require('ilp-protocol-stream')
const { emit } = require('./lines')

const MAX_AMOUNT = '18446744073709551615'
let server

/** Counts what arrives; `quiet` tells it only when a stream ends, for measurements. */
function watch (connection, { quiet = false, receiveMax = MAX_AMOUNT, giveBack, answer }) {
  let packets = 0
  connection.on('stream', (stream) => {
    emit('stream', { stream: stream.id })
    stream.setReceiveMax(receiveMax)
    stream.on('money', (amount) => {
      packets++
      if (!quiet) emit('money', { stream: stream.id, amount: String(amount) })
      // Once, with the first money: the sender's address is known by then.
      if (giveBack && packets === 1) stream.setSendMax(giveBack)
    })
    stream.on('data', (data) => {
      emit('data', { stream: stream.id, text: data.toString('utf8') })
      if (answer) stream.write(answer)
    })
    stream.on('outgoing_money', (amount) => emit('gaveBack', { amount: String(amount) }))
    stream.on('end', () => emit('end', { stream: stream.id, received: stream.totalReceived, packets }))
  })
  connection.on('close', () => emit('closed', { received: connection.totalReceived, packets }))
  connection.on('error', (err) => emit('connectionError', { message: err.message }))
}

/** Options: `serverSecret` (hex), `quiet`, `receiveMax`, `giveBack` (amount sent back), `answer` (text sent back). */
async function listen (plugin, { serverSecret, ...options }) {
  server = await createServer({ plugin, ...(serverSecret && { serverSecret: Buffer.from(serverSecret, 'hex') }) })
  server.on('connection', (connection) => {
    emit('connection', { tag: connection.connectionTag || null })
    watch(connection, options)
  })
  return { assetCode: server.assetCode, assetScale: server.assetScale, ...credentials({}) }
}

function credentials ({ tag, receiptNonce, receiptSecret }) {
  const { destinationAccount, sharedSecret, receiptsEnabled } = server.generateAddressAndSecret({
    ...(tag && { connectionTag: tag }),
    ...(receiptNonce && { receiptNonce: Buffer.from(receiptNonce, 'hex') }),
    ...(receiptSecret && { receiptSecret: Buffer.from(receiptSecret, 'hex') })
  })
  return { address: destinationAccount, secret: sharedSecret.toString('hex'), receiptsEnabled }
}

/** Resolves with true once `condition()` holds, looked at after each of the emitter's `event`; false after `ms`. */
function until (emitter, event, condition, ms) {
  if (condition()) return Promise.resolve(true)
  return new Promise((resolve) => {
    const done = (answer) => {
      clearTimeout(timer)
      emitter.removeListener(event, look)
      resolve(answer)
    }
    const look = () => { if (condition()) done(true) }
    const timer = setTimeout(() => done(false), ms)
    emitter.on(event, look)
  })
}

/** `options` go to createConnection (slippage, maximumPacketAmount, ...). */
function connect (plugin, { address, secret, options }) {
  return createConnection({ plugin, destinationAccount: address, sharedSecret: Buffer.from(secret, 'hex'), ...options })
}

/** Sends a total of `amount` units of the source asset; times are of the payment and of its set-up, apart. */
async function pay (plugin, { amount, timeoutMs = 60000, ...args }) {
  const startedAt = process.hrtime.bigint()
  const connection = await connect(plugin, args)
  const connectedAt = process.hrtime.bigint()
  const stream = connection.createStream()
  let packets = 0
  stream.on('outgoing_money', () => packets++)
  await stream.sendTotal(amount, { timeout: timeoutMs })
  const endedAt = process.hrtime.bigint()
  const receipt = stream.receipt
  const result = {
    packets,
    sent: connection.totalSent,
    delivered: connection.totalDelivered,
    destinationAssetCode: connection.destinationAssetCode || null,
    destinationAssetScale: connection.destinationAssetScale === undefined ? null : connection.destinationAssetScale,
    receipt: receipt ? receipt.toString('hex') : null,
    setupSeconds: Number(connectedAt - startedAt) / 1e9,
    seconds: Number(endedAt - connectedAt) / 1e9
  }
  await connection.end()
  return result
}

/** Writes `text`, optionally sends and takes money, and waits for `expectText` and `expectMoney` from the other side. */
async function exchange (plugin, { text, amount, expectText = '', expectMoney, timeoutMs = 20000, ...args }) {
  const connection = await connect(plugin, args)
  const stream = connection.createStream()
  let heard = ''
  stream.on('data', (data) => { heard += data.toString('utf8') })
  if (expectMoney) stream.setReceiveMax(MAX_AMOUNT)
  if (text) stream.write(text)
  if (amount) await stream.sendTotal(amount, { timeout: timeoutMs })
  await until(stream, 'data', () => heard.length >= expectText.length, timeoutMs)
  if (expectMoney) await until(stream, 'money', () => BigInt(stream.totalReceived) >= BigInt(expectMoney), timeoutMs)
  const result = { heard, sent: connection.totalSent, received: connection.totalReceived }
  await connection.end()
  return result
}

module.exports = { connect, credentials, listen, pay, exchange }
