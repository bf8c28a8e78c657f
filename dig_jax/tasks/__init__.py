"""What is asked and what is right: from an answer's text to its reward."""
