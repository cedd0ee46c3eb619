"""`python -m bench.datasets`: the dataset library against plain pyarrow and boto3, the same work.

Both sides share one boto3 client, one store and one run, and take turns. The plain side is what a
careful engineer would write for the one job at hand: threads as many as the library has requests
under way, no validation, no commit gate, no retries.
"""
