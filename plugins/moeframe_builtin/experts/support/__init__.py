"""What several experts share."""
