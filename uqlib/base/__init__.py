"""What every family rests on: arrays and their checks, options, splits, scales, provenance."""
