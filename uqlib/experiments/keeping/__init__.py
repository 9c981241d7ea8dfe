"""What is kept of networks and trainings in data/: in the smallest type that holds it, run by run, whole at any time."""
