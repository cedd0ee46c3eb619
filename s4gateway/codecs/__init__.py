"""Codecs and framing: bytes in, bytes out, CPU only; callers choose the thread."""
