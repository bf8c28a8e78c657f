"""The learning study: `python -m study` reruns it and writes its tables and plots (docs/learning.md)."""
