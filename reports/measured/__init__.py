"""Results of real runs that the project made: one CSV file for each export, a line for each run and phase."""
