"""s4gateway: an S3-compatible gateway that compresses what you store, invisibly."""

__version__ = "0.1.0"
