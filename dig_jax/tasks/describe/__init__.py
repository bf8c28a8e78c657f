"""Descriptions: of the object in a box, and of a whole image with the box of each object."""
