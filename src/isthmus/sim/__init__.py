"""A network of isthmus nodes on virtual time: faults, adversaries, and an auditor after every run.

Everything follows from one seed. The kernel, the BTP and HTTP session machines, STREAM, the wallet's ledger and the
journal are the real ones; networks, disks, clocks and users are played. Nothing here opens a socket, starts a thread
or looks at a clock.
"""
