"""Models of other programs here, and ours there: names, shapes and fields."""
