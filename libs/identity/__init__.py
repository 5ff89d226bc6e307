"""Who calls: tokens made and verified, and what each role may do. Shared by the BFF, the gateway and the CLI."""
