"""What lies on disk: parameters, where everything lies, files written whole, samples."""
