"""What several tests share: servers, applications, readers of pages, the schemas of other programs."""
