"""From the catalog to storage, and from storage to what a scrape reads."""
