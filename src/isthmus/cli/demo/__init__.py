"""`isthmus demo`: a payment from BTC to ETH over three connectors, in processes of their own on this machine."""
