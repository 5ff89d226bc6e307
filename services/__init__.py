"""The processes of Colloquy: one package per bounded context, the gateway, the BFF, the simulator and the CLI."""
