"""The S3 protocol for both sides, sans-I/O: we verify clients and sign to the backend."""
