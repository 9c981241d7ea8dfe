"""What is one paper's alone: names in print, released rules, released metrics, options of its baselines."""
