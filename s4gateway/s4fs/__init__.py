"""An fsspec filesystem that reads and writes S4 objects with no gateway."""
