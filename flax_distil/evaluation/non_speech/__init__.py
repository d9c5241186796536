"""What models write where nobody speaks."""
