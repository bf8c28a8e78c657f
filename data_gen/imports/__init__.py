"""A user's own pairs: files that list them, read and checked, and turned into records."""
