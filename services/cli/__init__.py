"""The `colloquy` command: it starts, migrates and uses the product, always through its outer faces."""
