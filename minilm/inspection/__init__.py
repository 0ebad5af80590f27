"""From a target to a Report: open it, compare its witnesses, count its parameters and its costs."""
