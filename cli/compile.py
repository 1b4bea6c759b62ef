"""`nasc compile`."""
