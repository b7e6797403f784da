"""The XRP Ledger: its keys, hashes and channels, and a development ledger shaped like its server `rippled`.

Needs the extra `isthmus[xrp]`: the binary format and the addresses are those of `xrpl-py`.
"""
