"""One file per S3 operation the gateway rewrites; none knows another."""
