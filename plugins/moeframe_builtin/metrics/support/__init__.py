"""What several metrics share: features, distances, likelihood methods, reconstructions."""
