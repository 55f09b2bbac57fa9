"""
From the catalog and the objectives to rules and dashboards.

Nothing here opens a file.
"""
