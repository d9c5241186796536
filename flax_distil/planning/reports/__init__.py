"""What a plan says: one plan, the plan of labelling, and several plans beside each other."""
