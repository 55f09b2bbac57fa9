"""`scaleobs check`: hold rules and dashboards against a live service or a Prometheus."""
