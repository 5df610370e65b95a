"""Reading the models of ELMoForManyLangs (Che et al. 2018)."""
