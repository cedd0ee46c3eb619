"""The gateway's speed and memory, held against its bars in one paired run: `python -m bench`.

A plain package beside the product: it starts real servers, drives them over loopback and never
imports the gateway, so that what it measures is the process a user runs.
"""
