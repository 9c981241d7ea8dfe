"""Files that can be trusted: whole or absent, every byte checked, typed, known by what they hold."""
