"""The chapters of docs/parameters-explained, one file each, in the order of scripts/tools/explained.py."""
