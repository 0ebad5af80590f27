"""A number from elsewhere, explained as the exact count plus or minus named parts."""
