"""scaleobs beside its peers and beside the floor, in one run; `README.md` says what is measured and how."""
