"""One line makes a Python web service observable."""
