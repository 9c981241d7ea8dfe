"""What a notebook reports with: tables, figures, figures that move, numbers for the prose."""
