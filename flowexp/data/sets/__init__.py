"""Images, captions and latents in memory, as batches of rows."""
