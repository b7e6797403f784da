"""Engines that settle on EVM chains: by payment channels (`channels`) and by plain transfers (`transfers`)."""
