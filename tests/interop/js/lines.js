'use strict'
// One JSON object a line: {"id", "call", "args"} comes in on stdin, {"id", "result"|"error"} and {"event", ...} go out
// on stdout. Whatever the libraries print goes to stderr. The process ends with its stdin.

const readline = require('readline')

const write = process.stdout.write.bind(process.stdout)
process.stdout.write = process.stderr.write.bind(process.stderr)

function send (message) {
  write(JSON.stringify(message) + '\n')
}

function emit (event, fields = {}) {
  send({ event, ...fields })
}

function serve (calls) {
  const lines = readline.createInterface({ input: process.stdin })
  lines.on('line', async (line) => {
    const { id, call, args } = JSON.parse(line)
    try {
      if (!Object.hasOwn(calls, call)) throw new Error('unknown call ' + call)
      const result = await calls[call](args || {})
      send({ id, result: result === undefined ? null : result })
    } catch (err) {
      send({ id, error: err && err.message ? err.message : String(err) })
    }
  })
  lines.on('close', () => process.exit(0))
  // A library's stray rejection must not end the peer in the middle of a test: it is shown, and the test decides.
  process.on('unhandledRejection', (err) => console.error('unhandled rejection:', err))
  emit('hello', { node: process.version })
}

module.exports = { emit, serve }
