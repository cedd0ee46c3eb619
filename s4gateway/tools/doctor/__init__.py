"""What a store can do and what it will do to you, found out by asking."""
