"""Exchange rates from the world: sources, what is believed of them, and the table that the kernel gets."""
