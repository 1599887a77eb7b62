"""Pictures of finished runs, from their stored files."""
