"""What lies on disk: files that are whole or absent, weights, resumable state, tables; not what they mean."""
