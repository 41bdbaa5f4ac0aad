"""Doors to other people's software and weights; their conventions stay behind these doors."""
