"""Images and videos: writing, reading, verifying, and making previews."""
