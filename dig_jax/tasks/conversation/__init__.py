"""Conversations: what an assistant says, round by round, of images and of text alone."""
