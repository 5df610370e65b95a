"""Selection of documents: filters with lists of users, decontamination, masks, and their counts."""
