"""Everything that imports Beam: jobs, engines, transforms, workers and their progress."""
