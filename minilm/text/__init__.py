"""Text: where it comes from, how it is cleaned, and how it becomes tokens. No torch in here."""
