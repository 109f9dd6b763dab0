"""What experiments have found: tables, figures, and one page of it all."""
