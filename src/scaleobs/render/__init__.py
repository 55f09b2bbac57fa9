"""
From the catalog and the objectives to rules, dashboards and deployment files.

Nothing here opens a file.
"""
