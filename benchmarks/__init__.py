"""scaleobs beside its peers and beside the floor, in one run; `README.md` describes what is measured and how."""
