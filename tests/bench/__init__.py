"""`make bench`: what a turn costs in time and CPU. It measures and prints; nothing here passes or fails by a clock."""
