"""Append-only Parquet datasets on S3 with a change stream."""
