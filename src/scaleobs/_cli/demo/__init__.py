"""`scaleobs demo`: a service, a fault, and its alert, in about a minute."""
