"""Which key a query sees, and everything that makes a model obey."""
