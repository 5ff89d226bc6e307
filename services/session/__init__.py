"""The directory of sessions: which conversations there are, of whom, and how far along."""
