"""The stored-object format as values and bytes: no I/O, no clock, no codec library."""
