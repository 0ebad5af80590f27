"""From a target to a Report: find what it is, collect the witnesses, compare them, price them."""
