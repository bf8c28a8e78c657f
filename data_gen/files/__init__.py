"""Files that the stages hand to one another, and files that a user names."""
