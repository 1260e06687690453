"""From raw input to a phone: stages, each a folder that is reused; and batches of scenes."""
