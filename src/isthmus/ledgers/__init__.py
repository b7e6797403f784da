"""Ledgers: what isthmus knows of the outside systems on which peers settle. Imports nothing above it."""
