"""What an S4 object is: body, manifest and sidecar over any Backend."""
