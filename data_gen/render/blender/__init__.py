"""What runs inside Blender: the only modules that import `bpy`. worker.py is the way in.

They see plain JSON values, which the controller has checked (schema.py), and share with it nothing but
shapes.py, which needs the standard library alone.
"""


class Refused(Exception):
    """A request that cannot be served, for a reason that the user can act on."""
