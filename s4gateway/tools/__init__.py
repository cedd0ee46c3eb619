"""Operator tools as functions: parameters in, a report out; nothing is printed here."""
