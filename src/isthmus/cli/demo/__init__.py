"""`isthmus demo`: a payment from BTC to ETH over three connectors, in processes of their own on this machine.

Nothing is imported here: the children start through this package too (`guarded.py`), and are to start fast.
"""
