"""How routes are learned from neighbours and told to them (CCP), and how one is chosen (docs/routing.md)."""
