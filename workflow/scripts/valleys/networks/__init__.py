"""What is done to any network: copies that can be moved, checks, batch norm; building one is for `models`."""
