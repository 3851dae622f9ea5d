"""Point prompts: read off a relevance map, or named by a generator that learns."""
