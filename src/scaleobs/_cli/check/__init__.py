"""`scaleobs check`: compare rules and dashboards with a live service or a Prometheus."""
