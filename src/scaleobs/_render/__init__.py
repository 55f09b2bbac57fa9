"""
Rules and dashboards from the catalog and the objectives.

No module of this package opens a file.
"""
