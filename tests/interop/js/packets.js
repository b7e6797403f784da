'use strict'
// Bare ILP packets, and ILDCP as client and as server, by ilp-packet and ilp-protocol-ildcp.

const crypto = require('crypto')
const ILDCP = require('ilp-protocol-ildcp')
const IlpPacket = require('ilp-packet')
const { emit } = require('./lines')

function sha256 (bytes) {
  return crypto.createHash('sha256').update(bytes).digest()
}

function ildcp (plugin) {
  return ILDCP.fetch(plugin.sendData.bind(plugin))
}

/** Sends a Prepare whose fulfillment is its 32 bytes of data, and tells the answer. */
async function prepare (plugin, { destination, amount, data, condition, expiresInMs = 30000 }) {
  const preimage = data ? Buffer.from(data, 'hex') : crypto.randomBytes(32)
  const sent = IlpPacket.serializeIlpPrepare({
    amount,
    destination,
    executionCondition: condition ? Buffer.from(condition, 'hex') : sha256(preimage),
    expiresAt: new Date(Date.now() + expiresInMs),
    data: preimage
  })
  const packet = await plugin.sendData(sent)
  const { type, data: reply } = IlpPacket.deserializeIlpPacket(packet)
  if (type === IlpPacket.Type.TYPE_ILP_FULFILL) {
    return { type: 'fulfill', valid: sha256(reply.fulfillment).equals(sha256(preimage)), data: reply.data.toString('hex') }
  }
  return { type: 'reject', code: reply.code, triggeredBy: reply.triggeredBy, message: reply.message, data: reply.data.toString('hex') }
}

const handlers = {
  /** Fulfils with the packet's data, which is the preimage in `prepare` above. */
  fulfill: () => async (packet) => {
    const { amount, destination, expiresAt, data } = IlpPacket.deserializeIlpPrepare(packet)
    emit('prepare', { amount, destination, expiresAt: expiresAt.getTime(), data: data.toString('hex') })
    return IlpPacket.serializeIlpFulfill({ fulfillment: data, data: Buffer.from('thanks') })
  },

  reject: ({ code = 'F99', message = 'no', triggeredBy = 'test.far' }) => async (packet) => {
    const { amount, destination } = IlpPacket.deserializeIlpPrepare(packet)
    emit('prepare', { amount, destination })
    return IlpPacket.serializeIlpReject({ code, message, triggeredBy, data: Buffer.alloc(0) })
  },

  /** A parent that serves ILDCP, and fulfils everything else. */
  ildcp: ({ serverAddress, info }) => {
    const fulfill = handlers.fulfill()
    return async (packet) => {
      if (IlpPacket.deserializeIlpPrepare(packet).destination !== 'peer.config') return fulfill(packet)
      emit('ildcp')
      return ILDCP.serve({ requestPacket: packet, handler: async () => info, serverAddress })
    }
  }
}

module.exports = { handlers, ildcp, prepare }
