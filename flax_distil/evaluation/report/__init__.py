"""What people read of an evaluation: tables of the terminal, the CSV file, and one page with plots."""
