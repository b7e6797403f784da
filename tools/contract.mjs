// Compiles the payment channels' contract (`make contract`): `node tools/contract.mjs` compares what it gets with what
// is committed, `--write` writes it. `--tests OUT` compiles the tests' tokens instead. The compiler is the npm package
// `solc` of tests/ledgers/evm, so its version is in that folder's lock.
import { createRequire } from 'node:module'
import { readFileSync, writeFileSync, existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const solc = createRequire(join(root, 'tests/ledgers/evm/package.json'))('solc')

function compile (path, name) {
  const input = {
    language: 'Solidity',
    sources: { [name]: { content: readFileSync(join(root, path), 'utf8') } },
    settings: {
      evmVersion: 'cancun',
      viaIR: true,
      optimizer: { enabled: true, runs: 100000 },
      metadata: { bytecodeHash: 'none', appendCBOR: false },
      outputSelection: { '*': { '*': ['abi', 'evm.bytecode.object', 'evm.deployedBytecode.object', 'evm.deployedBytecode.immutableReferences'] } }
    }
  }
  const output = JSON.parse(solc.compile(JSON.stringify(input)))
  for (const error of output.errors ?? []) console.error(error.formattedMessage)
  if ((output.errors ?? []).length > 0) process.exit(1)
  return output.contracts[name]
}

function artifact (name, one) {
  return {
    contract: name,
    compiler: solc.version(),
    command: 'node tools/contract.mjs --write',
    abi: one.abi,
    bytecode: '0x' + one.evm.bytecode.object,
    runtime: '0x' + one.evm.deployedBytecode.object,
    immutables: Object.values(one.evm.deployedBytecode.immutableReferences).flat().map(({ start, length }) => [start, length])
  }
}

const [option, out] = process.argv.slice(2)
if (option === '--tests') {
  const contracts = compile('tests/ledgers/evm/contracts/Tokens.sol', 'Tokens.sol')
  const found = Object.entries(contracts).map(([name, one]) => [name, artifact(name, one)])
  writeFileSync(out, JSON.stringify(Object.fromEntries(found)))
} else {
  const folder = 'src/isthmus/ledgers/evm/contract'
  const file = join(root, folder, 'IsthmusChannels.json')
  const contracts = compile(`${folder}/IsthmusChannels.sol`, 'IsthmusChannels.sol')
  const text = JSON.stringify(artifact('IsthmusChannels', contracts.IsthmusChannels), null, 1) + '\n'
  if (option === '--write') {
    writeFileSync(file, text)
  } else if (!existsSync(file) || readFileSync(file, 'utf8') !== text) {
    console.error(`${file} is not what this source compiles to: node tools/contract.mjs --write`)
    process.exit(1)
  }
  console.log(`${solc.version()}: ${contracts.IsthmusChannels.evm.deployedBytecode.object.length / 2} bytes of code`)
}
