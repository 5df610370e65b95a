"""The model and its training: torch below, Lightning on top."""
