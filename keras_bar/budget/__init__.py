"""Everything that follows a budget: callbacks, controls, costs, selection."""
