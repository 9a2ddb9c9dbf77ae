"""A cluster as the outside of an authority: its Secrets as the store, TokenReview, Lease, ConfigMaps and Secrets."""
