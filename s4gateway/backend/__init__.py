"""The only door to the outside: an object store behind fourteen verbs."""
