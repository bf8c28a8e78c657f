"""What a scene is: objects, camera and light as plain data, and where they land in the picture."""
