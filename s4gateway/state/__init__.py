"""What survives a restart on this machine: files written atomically, and the savings ledger."""
