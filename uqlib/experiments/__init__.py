"""Which networks and trainings the book asks for, how each is made, and what came of them."""
