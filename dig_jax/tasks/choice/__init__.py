"""Questions with lettered options, of which one is right."""
