"""Attention over paged keys and values, under interval masks."""
